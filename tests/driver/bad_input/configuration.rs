//! Flags and variables: exit status 64, a text that names flag, variable and what is allowed, and no socket.

use std::process::{Command, Stdio};

use super::report;

/// What is wrong, the arguments, the variables, and a phrase of the text.
type Row = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)], &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("word that is no flag", &["node"], &[], "\"node\" is not a flag; flags start with --"),
    ("unknown flag", &["--nonsense"], &[], "--nonsense is not a flag of csi-udisk; see --help"),
    ("unknown flag with value", &["--private-key=word"], &[], "--private-key is not a flag of csi-udisk; see --help"),
    ("unknown flag with a word behind it", &["--private-key", "hunter2"], &[], "has a fault:\n  --private-key is not a flag of csi-udisk"),
    ("flag without name", &["--"], &[], "-- is not a flag of csi-udisk"),
    ("flag without value", &["--zone"], &[], "--zone (UCLOUD_ZONE_ID, UCLOUD_ZONE): has no value"),
    ("mode", &["--mode=server"], &[], "--mode (CSI_UDISK_MODE): \"server\" on the command line is not a mode; allowed: controller, node, all"),
    ("mode in a variable", &[], &[("CSI_UDISK_MODE", "Node")], "\"Node\" in CSI_UDISK_MODE is not a mode; allowed: controller, node, all"),
    ("endpoint over TCP", &["--endpoint=tcp://127.0.0.1:1"], &[], "is not a unix socket; allowed: unix:///csi/csi.sock"),
    ("endpoint of a directory", &["--endpoint=unix:///csi/"], &[], "--endpoint (CSI_UDISK_ENDPOINT): \"unix:///csi/\" on the command line names no file"),
    ("endpoint of the root", &["--endpoint=/"], &[], "names no file"),
    ("endpoint with nothing", &["--endpoint=unix://"], &[], "names no file"),
    ("endpoint that leads upwards", &["--endpoint=/csi/.."], &[], "names no file"),
    ("long endpoint", &["--endpoint=/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], &[], "the kernel allows 107 for a socket"),
    ("relative plugin directory", &["--plugin-dir=csi"], &[], "--plugin-dir (CSI_UDISK_PLUGIN_DIR): \"csi\" on the command line is not an absolute path; it must start with /"),
    ("plugin directory upwards", &["--plugin-dir=/var/../etc"], &[], "holds a \"..\"; give the directory itself"),
    ("driver name with underscore", &["--drivername=my_driver"], &[], "is not a driver name; allowed: up to 63 letters, digits, '-' and '.'"),
    ("driver name with dot at the end", &["--drivername=driver."], &[], "with a letter or digit at both ends"),
    ("long driver name", &["--drivername=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], &[], "up to 63 letters"),
    ("node id with blank", &["--node-id=uhost 1"], &[], "--node-id (CSI_UDISK_NODE_ID): \"uhost 1\" on the command line holds ' '"),
    ("node id in a variable", &[], &[("CSI_UDISK_NODE_ID", "a/b")], "allowed: a host id such as uhost-abc123 or upm-abc123"),
    ("machine type with blank", &["--machine-type=O S"], &[], "--machine-type (CSI_UDISK_MACHINE_TYPE)"),
    ("no volumes", &["--maxvolume=0"], &[], "allowed: 1 to 26, the most that a host takes"),
    ("too many volumes", &["--maxvolume=27"], &[], "\"27\" on the command line is not a number of volumes"),
    ("negative volumes", &["--maxvolume=-1"], &[], "allowed: 1 to 26"),
    ("volumes in words", &[], &[("CSI_UDISK_MAXVOLUME", "twenty")], "\"twenty\" in CSI_UDISK_MAXVOLUME"),
    ("volumes without end", &["--maxvolume=99999999999999999999"], &[], "allowed: 1 to 26"),
    ("host name with blank", &["--hostname=a b"], &[], "is not a node name; allowed: up to 253 visible characters"),
    ("host name that prints nothing", &["--hostname=\u{7}"], &[], "\"\\u{7}\" on the command line is not a node name"),
    ("relative kubelet directory", &["--kubelet-dir=kubelet"], &[], "--kubelet-dir (CSI_UDISK_KUBELET_DIR)"),
    ("relative sysfs", &["--sysfs-root=sys"], &[], "--sysfs-root (CSI_UDISK_SYSFS_ROOT)"),
    ("relative dev", &[], &[("CSI_UDISK_DEV_ROOT", "dev")], "\"dev\" in CSI_UDISK_DEV_ROOT is not an absolute path"),
    ("API without scheme", &["--api-endpoint=api.ucloud.cn"], &[], "is not a URL (relative URL without a base); allowed: an address such as"),
    ("API over FTP", &["--api-endpoint=ftp://api.ucloud.cn"], &[], "is neither http nor https"),
    ("API that is empty", &["--api-endpoint=http://"], &[], "is not a URL (empty host)"),
    ("API with a query", &["--api-endpoint=http://api.ucloud.cn/?Action=x"], &[], "holds a query"),
    ("API with a fragment", &["--api-endpoint=http://api.ucloud.cn/#x"], &[], "holds a query"),
    ("API with a password", &["--api-endpoint=http://me:hunter2@api.ucloud.cn"], &[], "holds a user name or password"),
    ("API with a token", &[], &[("UCLOUD_API_BASE_URL", "http://api.ucloud.cn/?SecurityToken=hunter2")], "in UCLOUD_API_BASE_URL holds a query"),
    ("API with a password and a blank", &["--api-endpoint=http://me:hunter2@api ucloud.cn"], &[], "is not a URL"),
    ("metadata with a password", &["--metadata-endpoint=http://hunter2@127.0.0.1"], &[], "--metadata-endpoint (CSI_UDISK_METADATA_ENDPOINT)"),
    ("API time 0", &["--api-timeout=0"], &[], "--api-timeout (UCLOUD_TIMEOUT_SECOND): \"0\" on the command line is out of range; allowed: 1s to 120s"),
    ("API time too long", &[], &[("UCLOUD_TIMEOUT_SECOND", "3m")], "\"3m\" in UCLOUD_TIMEOUT_SECOND is out of range"),
    ("API time in words", &["--api-timeout=soon"], &[], "is not a duration; allowed: 1s to 120s, written like 45, 45s or 1m30s"),
    ("API time below zero", &["--api-timeout=-5s"], &[], "is not a duration"),
    ("API time without end", &["--api-timeout=99999999999999999999h"], &[], "is not a duration"),
    ("settle time too long", &["--create-settle=2h"], &[], "--create-settle (CSI_UDISK_CREATE_SETTLE)"),
    ("read lag too long", &["--read-lag=6m"], &[], "--read-lag (CSI_UDISK_READ_LAG): \"6m\" on the command line is out of range; allowed: 0s to 300s"),
    ("region with slash", &["--region=a/b"], &[], "is not an id of the cloud; allowed: up to 128 letters"),
    ("zone with slash", &["--zone=a/b"], &[], "allowed: a zone such as cn-bj2-05"),
    ("zone in a variable", &[], &[("UCLOUD_ZONE_ID", "北京")], "\"北京\" in UCLOUD_ZONE_ID holds '北'"),
    ("project with blank", &[], &[("UCLOUD_PROJECT_ID", "org 1")], "--project-id (UCLOUD_PROJECT_ID)"),
    ("network with blank", &[], &[("UCLOUD_VPC_ID", "uvnet 1")], "--vpc-id (UCLOUD_VPC_ID)"),
    ("relative credentials directory", &["--credentials-dir=keys"], &[], "--credentials-dir (CSI_UDISK_CREDENTIALS_DIR)"),
    ("role that leads upwards", &["--sts-role=../role"], &[], "--sts-role (CSI_UDISK_STS_ROLE)"),
    ("second role with slash", &["--sts-role-v2=a/b"], &[], "--sts-role-v2 (CSI_UDISK_STS_ROLE_V2)"),
    ("public key alone", &[], &[("UCLOUD_ACCESS_PUBKEY", "hunter2")], "UCLOUD_ACCESS_PRIKEY: not set, but UCLOUD_ACCESS_PUBKEY is; set both or none"),
    ("private key alone", &[], &[("UCLOUD_PRIVATE_KEY", "hunter2")], "UCLOUD_PUBLIC_KEY: not set, but UCLOUD_PRIVATE_KEY is"),
    ("keys of two families", &[], &[("UCLOUD_ACCESS_PUBKEY", "hunter2"), ("UCLOUD_API_PRIKEY", "hunter2")], "UCLOUD_ACCESS_PRIKEY: not set"),
    ("multi-attach", &["--multi-attach=maybe"], &[], "cannot be understood; allowed: no, yes, omit"),
    ("cross-pod", &["--cross-pod-attach=yes"], &[], "\"yes\" on the command line is not a truth value; allowed: true, false"),
    ("verbosity", &["--v=high"], &[], "--v (CSI_UDISK_V): \"high\" on the command line is not a verbosity; allowed: 0 to 10"),
    ("verbosity below zero", &["-v=-1"], &[], "is not a verbosity"),
    ("log filter", &["--log=a=b=c"], &[], "is not a log filter"),
    ("log format", &["--log-format=xml"], &[], "is not a format; allowed: json, text"),
    ("two faults", &["--mode=x", "--maxvolume=x"], &[], "the configuration has 2 faults:"),
    ("sandbox, unknown flag", &["sandbox", "--nonsense"], &[], "--nonsense is not a flag"),
    ("sandbox, latency", &["sandbox", "--latency=endless"], &[], "is not a latency; allowed: none, short, realistic"),
    ("sandbox, cloud without serving", &["sandbox", "--cloud-only"], &[], "--cloud-only: needs --serve"),
];

#[test]
fn a_bad_configuration_ends_with_64_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut faults = Vec::new();
    for (what, arguments, variables, phrase) in ROWS {
        let mut command = Command::new(env!("CARGO_BIN_EXE_csi-udisk"));
        command.args(*arguments).env_clear().envs(variables.iter().copied());
        if arguments.first() != Some(&"sandbox") {
            // A value that could be used, unless the row has its own.
            let socket = dir.path().join("plugin/csi.sock");
            command.env("CSI_UDISK_ENDPOINT", socket).env("CSI_UDISK_PLUGIN_DIR", dir.path().join("plugin"));
        }
        let output = command.current_dir(dir.path()).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        let mut fault = |problem: &str| faults.push(format!("{what}: {problem} [{}]", text.trim_end()));
        if output.status.code() != Some(64) {
            fault(&format!("ended with {}", output.status));
        }
        if !text.contains(phrase) {
            fault(&format!("does not say {phrase:?}"));
        }
        if text.contains("hunter2") || text.chars().any(|c| c.is_control() && c != '\n') {
            fault("shows a secret or a control character");
        }
        if !output.stdout.is_empty() || std::fs::read_dir(dir.path()).unwrap().next().is_some() {
            fault("left something behind");
        }
    }
    report("configuration", ROWS.len());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
