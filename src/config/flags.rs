//! Every flag of the driver, once: its name, its variables, its default and its help.
//!
//! Parsing, faults, `--help` and the tests all read this table, so they cannot disagree. It is a table and
//! not a derive of an argument parser because the driver takes over another plugin's command line: Go's
//! spelling (`-v=5`, `--alsologtostderr`), logging flags that mean nothing here, several variables for one
//! flag, and all faults at once instead of the first.

/// How a flag takes its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--flag VALUE` or `--flag=VALUE`; the text is the value's name in the help.
    Value(&'static str),
    /// `--flag` or `--flag=true|false`.
    Switch,
    /// Taken for the sake of existing manifests, without effect.
    IgnoredSwitch,
    IgnoredValue,
}

/// The headings of `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Serving,
    Node,
    Cloud,
    Credentials,
    Volumes,
    Log,
    Ignored,
}

impl Group {
    pub(super) const ALL: [Self; 7] =
        [Self::Serving, Self::Node, Self::Cloud, Self::Credentials, Self::Volumes, Self::Log, Self::Ignored];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Serving => "Serving",
            Self::Node => "Node (modes node and all)",
            Self::Cloud => "Cloud",
            Self::Credentials => "Credentials (modes controller and all, and --node-cloud-lookup)",
            Self::Volumes => "Volumes (modes controller and all)",
            Self::Log => "Log",
            Self::Ignored => "Taken and ignored, for manifests of the plugin that this one replaces",
        }
    }
}

/// One flag.
#[derive(Debug)]
pub(super) struct Flag {
    /// Without dashes. `-` and `_` are the same when a flag is looked up.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) group: Group,
    /// Variables that stand in for the flag, the first that is set and not empty wins.
    pub(super) variables: &'static [&'static str],
    pub(super) default: Option<&'static str>,
    pub(super) help: &'static str,
}

impl Flag {
    /// `--zone (UCLOUD_ZONE_ID, UCLOUD_ZONE)`: how faults and the help name the flag.
    pub(super) fn label(&self) -> String {
        if self.variables.is_empty() {
            format!("--{}", self.name)
        } else {
            format!("--{} ({})", self.name, self.variables.join(", "))
        }
    }
}

macro_rules! flags {
    ($table:ident: $($constant:ident = $name:literal, $kind:expr, $group:ident, $variables:expr, $default:expr, $help:literal;)*) => {
        $(pub(super) static $constant: Flag = Flag {
            name: $name,
            kind: $kind,
            group: Group::$group,
            variables: &$variables,
            default: $default,
            help: $help,
        };)*
        /// In the order of the help.
        pub(super) static $table: &[&Flag] = &[$(&$constant),*];
    };
}

flags! { DRIVER:
    MODE = "mode", Kind::Value("controller|node|all"), Serving, ["CSI_UDISK_MODE"], Some("all"),
        "Which CSI services to serve.";
    ENDPOINT = "endpoint", Kind::Value("SOCKET"), Serving, ["CSI_UDISK_ENDPOINT"], None,
        "The unix socket to serve on: unix:///csi/csi.sock, unix://csi/csi.sock (the same file) or a path. \
         Default: csi.sock in --plugin-dir, else /csi/csi.sock.";
    PLUGIN_DIR = "plugin-dir", Kind::Value("DIR"), Serving, ["CSI_UDISK_PLUGIN_DIR"], None,
        "The directory of the socket on a node. It is created when it is missing.";
    DRIVERNAME = "drivername", Kind::Value("NAME"), Serving, ["CSI_UDISK_DRIVERNAME"], Some("udisk.csi.ucloud.cn"),
        "The name that Kubernetes knows the driver by.";
    CHECK_CONFIG = "check-config", Kind::Switch, Serving, ["CSI_UDISK_CHECK_CONFIG"], Some("false"),
        "Read flags and variables, tell every fault, and end without serving.";
    HTTP_ENDPOINT = "http-endpoint", Kind::Value("ADDRESS"), Serving, ["CSI_UDISK_HTTP_ENDPOINT"], None,
        "Where to serve /metrics, /healthz, /readyz and /log over HTTP, such as :9808. Default: nowhere.";
    NODE_ID = "node-id", Kind::Value("ID"), Node, ["CSI_UDISK_NODE_ID"], None,
        "The id of this host (uhost-..., upm-...). Default: what the metadata service says.";
    MACHINE_TYPE = "machine-type", Kind::Value("TYPE"), Node, ["CSI_UDISK_MACHINE_TYPE"], None,
        "The machine type of this host, such as O; it decides whether RSSD disks can be attached. \
         Default: what the metadata service says.";
    MAXVOLUME = "maxvolume", Kind::Value("1..26"), Node, ["CSI_UDISK_MAXVOLUME"], Some("20"),
        "How many volumes Kubernetes may put on this node.";
    HOSTNAME = "hostname", Kind::Value("NAME"), Node, ["CSI_UDISK_HOSTNAME"], None,
        "The name of the Kubernetes node. Shown in the log, never used as the node's id.";
    KUBELET_DIR = "kubelet-dir", Kind::Value("DIR"), Node, ["CSI_UDISK_KUBELET_DIR"], Some("/var/lib/kubelet"),
        "The root directory of kubelet.";
    KUBELET_REGISTRATION_PATH = "kubelet-registration-path", Kind::Value("PATH"), Node,
        ["CSI_UDISK_KUBELET_REGISTRATION_PATH"], None,
        "The driver's socket as kubelet sees it on the host. When it is given, the driver registers itself with \
         kubelet and needs no registrar beside it.";
    PLUGIN_REGISTRATION_PATH = "plugin-registration-path", Kind::Value("DIR"), Node,
        ["CSI_UDISK_PLUGIN_REGISTRATION_PATH"], Some("/registration"),
        "Where kubelet's directory plugins_registry is mounted, for the registration.";
    SYSFS_ROOT = "sysfs-root", Kind::Value("DIR"), Node, ["CSI_UDISK_SYSFS_ROOT"], Some("/sys"),
        "Where the host's sysfs is mounted.";
    DEV_ROOT = "dev-root", Kind::Value("DIR"), Node, ["CSI_UDISK_DEV_ROOT"], Some("/dev"),
        "Where the host's device nodes are.";
    NODE_CLOUD_LOOKUP = "node-cloud-lookup", Kind::Switch, Node, ["CSI_UDISK_NODE_CLOUD_LOOKUP"], Some("false"),
        "Ask the cloud for the place of a disk whose attachment does not say it, as those made by the plugin \
         that this one replaces. It takes the credentials that a controller takes; without it a node asks the \
         cloud nothing.";
    API_ENDPOINT = "api-endpoint", Kind::Value("URL"), Cloud, ["UCLOUD_API_ENDPOINT", "UCLOUD_API_BASE_URL"],
        Some("http://api.service.ucloud.cn"),
        "The cloud's API. The default is reachable from inside a VPC only and has no TLS; \
         https://api.ucloud.cn is the public one.";
    API_TIMEOUT = "api-timeout", Kind::Value("TIME"), Cloud, ["UCLOUD_TIMEOUT_SECOND"], Some("30s"),
        "How long one API request that reads may take, 1s to 120s; a number without unit means seconds. \
         Changes have at least the 60s after which the cloud itself gives up.";
    METADATA_ENDPOINT = "metadata-endpoint", Kind::Value("URL"), Cloud, ["CSI_UDISK_METADATA_ENDPOINT"],
        Some("http://100.80.80.80"),
        "The metadata service of this host: zone, region, host id, temporary keys.";
    REGION = "region", Kind::Value("ID"), Cloud, ["UCLOUD_REGION_ID", "UCLOUD_REGION"], None,
        "The region, such as cn-bj2. Default: what the metadata service says.";
    ZONE = "zone", Kind::Value("ID"), Cloud, ["UCLOUD_ZONE_ID", "UCLOUD_ZONE"], None,
        "The availability zone, such as cn-bj2-05. Default: what the metadata service says. On a node the \
         variables count only where the metadata service says nothing, since one ConfigMap serves all zones.";
    PROJECT_ID = "project-id", Kind::Value("ID"), Cloud, ["UCLOUD_PROJECT_ID"], None,
        "The project that owns the disks. Default: the account's default project.";
    VPC_ID = "vpc-id", Kind::Value("ID"), Cloud, ["UCLOUD_VPC_ID"], None,
        "The VPC in which hosts are looked up by address. Default: all of the project.";
    CREDENTIALS_DIR = "credentials-dir", Kind::Value("DIR"), Credentials, ["CSI_UDISK_CREDENTIALS_DIR"], None,
        "A mounted Secret with the files UCLOUD_ACCESS_PUBKEY and UCLOUD_ACCESS_PRIKEY; read again when they \
         change. Keys in variables come before it.";
    STS_ROLE = "sts-role", Kind::Value("ROLE"), Credentials, ["CSI_UDISK_STS_ROLE"], Some("Uk8sServiceCharacter"),
        "Without keys: the role whose temporary keys the metadata service gives out (API version 1).";
    STS_ROLE_V2 = "sts-role-v2", Kind::Value("ROLE"), Credentials, ["CSI_UDISK_STS_ROLE_V2"],
        Some("ServiceRoleForUK8S"),
        "The same for API version 2, which is asked when version 1 has no such role.";
    MULTI_ATTACH = "multi-attach", Kind::Value("no|yes|omit"), Volumes, ["CSI_UDISK_MULTI_ATTACH"], Some("no"),
        "What AttachUDisk says about attaching one disk to several hosts; omit leaves the parameter out.";
    CROSS_POD_ATTACH = "cross-pod-attach", Kind::Switch, Volumes, ["CSI_UDISK_CROSS_POD_ATTACH"], Some("false"),
        "Attach an RDMA disk across RDMA clusters when the cloud refuses it otherwise. \
         What that costs in speed is not documented.";
    CREATE_SETTLE = "create-settle", Kind::Value("TIME"), Volumes, ["CSI_UDISK_CREATE_SETTLE"], Some("60s"),
        "How long a disk must stay invisible after a creation without an answer before it is created again, \
         0s to 1h.";
    READ_LAG = "read-lag", Kind::Value("TIME"), Volumes, ["CSI_UDISK_READ_LAG"], Some("10s"),
        "How long reads of a disk may lag behind its changes, 0s to 5m. For so long from its first change on, \
         a process confirms that what it finds done is no old picture.";
    V = "v", Kind::Value("LEVEL"), Log, ["CSI_UDISK_V"], Some("2"),
        "How much to log: 0 warnings, 1 to 3 one line for each change, 4 to 7 details, 8 and more everything.";
    LOG = "log", Kind::Value("FILTER"), Log, ["CSI_UDISK_LOG"], None,
        "A filter in place of --v, such as info,csi_udisk::ucloud=debug.";
    LOG_FORMAT = "log-format", Kind::Value("json|text"), Log, ["CSI_UDISK_LOG_FORMAT"], Some("json"),
        "How to write the log, which goes to standard error.";
    ALSOLOGTOSTDERR = "alsologtostderr", Kind::IgnoredSwitch, Ignored, [], None, "";
    LOGTOSTDERR = "logtostderr", Kind::IgnoredSwitch, Ignored, [], None, "";
    STDERRTHRESHOLD = "stderrthreshold", Kind::IgnoredValue, Ignored, [], None, "";
    VMODULE = "vmodule", Kind::IgnoredValue, Ignored, [], None, "";
    LOG_DIR = "log_dir", Kind::IgnoredValue, Ignored, [], None, "";
    LOG_FILE = "log_file", Kind::IgnoredValue, Ignored, [], None, "";
    LOG_FILE_MAX_SIZE = "log_file_max_size", Kind::IgnoredValue, Ignored, [], None, "";
    LOG_BACKTRACE_AT = "log_backtrace_at", Kind::IgnoredValue, Ignored, [], None, "";
    ADD_DIR_HEADER = "add_dir_header", Kind::IgnoredSwitch, Ignored, [], None, "";
    ONE_OUTPUT = "one_output", Kind::IgnoredSwitch, Ignored, [], None, "";
    SKIP_HEADERS = "skip_headers", Kind::IgnoredSwitch, Ignored, [], None, "";
    SKIP_LOG_HEADERS = "skip_log_headers", Kind::IgnoredSwitch, Ignored, [], None, "";
}

flags! { PROBE:
    PROBE_ENDPOINT = "endpoint", Kind::Value("SOCKET"), Serving, ["CSI_UDISK_ENDPOINT"], None,
        "The socket to ask, as the driver's flag of this name. Default: csi.sock in --plugin-dir, else /csi/csi.sock.";
    PROBE_PLUGIN_DIR = "plugin-dir", Kind::Value("DIR"), Serving, ["CSI_UDISK_PLUGIN_DIR"], None,
        "The directory of the socket on a node.";
    PROBE_READY = "ready", Kind::Switch, Serving, [], Some("false"),
        "Ask whether the driver is ready for work, not only whether it is alive; what is missing is printed.";
    PROBE_TIMEOUT = "timeout", Kind::Value("TIME"), Serving, [], Some("3s"),
        "How long to wait for the answer, 1s to 1m.";
}

#[cfg(feature = "kube")]
flags! { KUBERNETES:
    KUBECONFIG = "kubeconfig", Kind::Value("FILE"), Serving, ["KUBECONFIG"], None,
        "How to reach the cluster; several files with colons between them are merged. Default: ~/.kube/config, else, \
         in a pod, its service account.";
    CONTEXT = "context", Kind::Value("NAME"), Serving, [], None, "The context of the kubeconfig. Default: its current one.";
    OUTPUT = "output", Kind::Value("text|wide|json"), Serving, [], Some("text"),
        "Lines of at most 120 columns, lines as long as they are, or JSON.";
    TIMEOUT = "timeout", Kind::Value("TIME"), Serving, [], Some("5m"),
        "How long one reading of the cluster or of the cloud may take, 1s to 1h.";
    INVENTORY_LOG = "log", Kind::Value("FILTER"), Serving, [], Some("warn"),
        "What to log to standard error, such as info,csi_udisk::ucloud=debug.";
}

#[cfg(feature = "kube")]
flags! { VOLUMES:
    STUCK_AFTER = "stuck-after", Kind::Value("TIME"), Serving, [], Some("10m"),
        "From when on what should pass counts as stuck, 1m to 24h.";
    VOLUMES_RECHECK = "recheck", Kind::Value("TIME"), Serving, [], Some("10s"),
        "What disagrees is looked at again after this time and told only if it still does, 0s to 1h; 0s looks once.";
    VOLUMES_NAME_PREFIX = "volume-name-prefix", Kind::Value("PREFIX"), Serving, [], Some("pvc"),
        "What the provisioner begins the names of volumes with.";
}

#[cfg(feature = "kube")]
flags! { ORPHANS:
    OLDER_THAN = "older-than", Kind::Value("TIME"), Serving, [], Some("24h"),
        "How old a disk must be, 10m to 87600h.";
    ORPHANS_RECHECK = "recheck", Kind::Value("TIME"), Serving, [], Some("60s"),
        "The time between the two readings, 1s to 1h.";
    ORPHANS_NAME_PREFIX = "volume-name-prefix", Kind::Value("PREFIX"), Serving, [], None,
        "A mark of this cluster's disks: what its provisioner, and no other cluster's, has as --volume-name-prefix.";
    BUSINESS_GROUP = "business-group", Kind::Value("NAME"), Serving, [], None,
        "A mark of this cluster's disks: a business group that is reserved for them. With both marks a disk must bear both.";
    DELETE = "delete", Kind::Switch, Serving, [], Some("false"),
        "Delete orphans of this cluster, each only after its id was typed.";
    IDS = "ids", Kind::Value("ID,ID"), Serving, [], None,
        "With --delete: only these. Without a terminal nobody can be asked, and only these are deleted.";
}

#[cfg(feature = "sandbox")]
flags! { SANDBOX:
    SERVE = "serve", Kind::Switch, Serving, [], Some("false"),
        "Leave the sandbox running, for a person, grpcurl, csi-sanity or the real sidecars.";
    DIR = "dir", Kind::Value("DIR"), Serving, [], None,
        "Where sockets, disks and cloud.url are put. Default: a temporary directory.";
    LATENCY = "latency", Kind::Value("none|short|realistic"), Serving, [], Some("short"),
        "How long the simulated cloud takes: nothing, about a second a change, or as long as the real one.";
    CLOUD_ONLY = "cloud-only", Kind::Switch, Serving, [], Some("false"),
        "With --serve: only the cloud and its hosts; start the drivers yourself, with the variables in \
         DIR/controller.env and DIR/node.env.";
}

/// Variables with the API's keys, public and private, in order. There are no flags for them: arguments are
/// shown by `ps`.
pub(super) const KEY_VARIABLES: [(&str, &str); 3] = [
    ("UCLOUD_ACCESS_PUBKEY", "UCLOUD_ACCESS_PRIKEY"),
    ("UCLOUD_API_PUBKEY", "UCLOUD_API_PRIKEY"),
    ("UCLOUD_PUBLIC_KEY", "UCLOUD_PRIVATE_KEY"),
];
