//! The configuration: flags and environment in, one validated [`Config`] out.
//!
//! Nothing else in the crate reads the environment. Everything is checked before a socket opens, and every
//! fault is reported at once, by flag and variable. What may be left open here (zone, host id, temporary
//! keys) is asked of the metadata service later.

mod args;
mod error;
mod flags;
mod help;
#[cfg(feature = "kube")]
mod inventory;
mod value;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;

pub use args::Variables;
use args::{Arguments, Given, Origin, Wish};
pub use error::{Fault, Faults};
use flags::Flag;
#[cfg(feature = "kube")]
pub use inventory::{Comparison, InventoryArgs, Kubernetes, OrphansArgs, Output, VolumesArgs};

use crate::telemetry::log::Log;
use crate::volume::{HostId, Zone};

/// Exit status for a wrong command line or environment (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;
/// Exit status for a start or a serving that failed.
pub const EXIT_FAILURE: u8 = 1;

/// Exit status of a command that looks for something and found it.
pub const EXIT_FOUND: u8 = 2;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve CSI.
    Run(Box<Config>),
    /// Run the simulated cloud.
    #[cfg(feature = "sandbox")]
    Sandbox(SandboxArgs),
    /// Compare a cluster with the cloud.
    #[cfg(feature = "kube")]
    Compare(Box<Comparison>),
    /// Ask a running driver how it is.
    Probe(ProbeArgs),
    /// Print this and end well: help or version.
    Print(String),
}

/// Which CSI services to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Controller,
    Node,
    All,
}

impl Mode {
    pub fn has_controller(self) -> bool {
        matches!(self, Self::Controller | Self::All)
    }

    pub fn has_node(self) -> bool {
        matches!(self, Self::Node | Self::All)
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Node => "node",
            Self::All => "all",
        }
    }
}

/// What AttachUDisk says about attaching a disk to several hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultiAttach {
    No,
    Yes,
    /// The parameter is not sent, so the API's own default holds.
    Omit,
}

/// The validated configuration.
#[derive(Debug)]
pub struct Config {
    pub mode: Mode,
    pub driver_name: String,
    /// The path of the unix socket.
    pub endpoint: PathBuf,
    /// Created at start when missing.
    pub plugin_dir: Option<PathBuf>,
    /// For metrics and people; none by default.
    pub http_endpoint: Option<SocketAddr>,
    pub metadata_endpoint: Url,
    pub region: Option<Setting<String>>,
    pub zone: Option<Setting<Zone>>,
    pub node: Node,
    pub cloud: Cloud,
    pub log: Log,
    /// Flags that were given and have no effect here, to be said once in the log.
    pub ignored: Vec<String>,
}

/// A value and how much it says about this very host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    pub value: T,
    /// Given as a flag, so it is meant for this process. One ConfigMap holds the variables of every node of a
    /// cluster, which may span zones.
    pub explicit: bool,
}

/// What only the node service uses.
#[derive(Debug)]
pub struct Node {
    pub node_id: Option<HostId>,
    pub machine_type: Option<String>,
    pub max_volumes: u8,
    /// The Kubernetes node's name, for the log.
    pub hostname: Option<String>,
    pub kubelet_dir: PathBuf,
    pub registration: Option<Registration>,
    pub sysfs_root: PathBuf,
    pub dev_root: PathBuf,
    /// Whether the node may ask the cloud where a disk is attached.
    pub cloud_lookup: bool,
}

/// How the node makes itself known to kubelet, when no registrar does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The driver's socket as kubelet sees it.
    pub endpoint: PathBuf,
    /// The directory that kubelet watches for sockets, as the driver sees it.
    pub dir: PathBuf,
}

/// What the controller service uses, and a node that may ask the cloud.
#[derive(Debug)]
pub struct Cloud {
    pub api_endpoint: Url,
    pub api_timeout: Duration,
    pub project_id: Option<String>,
    pub vpc_id: Option<String>,
    pub credentials: Credentials,
    pub multi_attach: MultiAttach,
    pub cross_pod_attach: bool,
    pub create_settle: Duration,
    pub read_lag: Duration,
}

/// Where the API's keys come from.
#[derive(Debug)]
pub enum Credentials {
    Keys {
        public: SecretString,
        private: SecretString,
    },
    Directory(PathBuf),
    /// Temporary keys from the metadata service, for a role of version 1 or 2 of that API.
    Sts {
        role: String,
        role_v2: String,
    },
}

/// The arguments of `csi-udisk probe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeArgs {
    pub endpoint: PathBuf,
    /// Whether "not ready yet" is a failure.
    pub ready: bool,
    pub timeout: Duration,
}

/// The arguments of `csi-udisk sandbox`.
#[cfg(feature = "sandbox")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxArgs {
    pub serve: bool,
    pub cloud_only: bool,
    pub latency: Latency,
    pub dir: Option<PathBuf>,
}

/// How long the simulated cloud takes for what it does.
#[cfg(feature = "sandbox")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    None,
    Short,
    Realistic,
}

/// Reads the command line and environment of this process.
pub fn from_process() -> Result<Command, Faults> {
    parse(std::env::args_os().skip(1), &|name: &str| std::env::var_os(name))
}

/// Reads `args` (without the program's name), looking up variables in `variables`.
pub fn parse(args: impl IntoIterator<Item = OsString>, variables: &dyn Variables) -> Result<Command, Faults> {
    let mut args = args.into_iter().peekable();
    if args.next_if(|first| first == "sandbox").is_some() {
        return sandbox(args);
    }
    if args.next_if(|first| first == "probe").is_some() {
        return probe(args, variables);
    }
    for name in ["volumes", "orphans"] {
        if args.next_if(|first| first == name).is_some() {
            return inventory_command(name, args, variables);
        }
    }
    let arguments = Arguments::parse(flags::DRIVER, args);
    match arguments.wish {
        Wish::Help => Ok(Command::Print(help::driver(flags::DRIVER))),
        Wish::Version => Ok(Command::Print(format!("{}\n", help::version()))),
        Wish::Run => driver(Reader { arguments, variables }),
    }
}

fn driver(mut reader: Reader<'_>) -> Result<Command, Faults> {
    let check = reader.read(&flags::CHECK_CONFIG, value::switch);
    let config = reader.config()?;
    if check != Some(true) {
        return Ok(Command::Run(Box::new(config)));
    }
    let ignored = match config.ignored.as_slice() {
        [] => String::new(),
        ignored => format!("; without effect: {}", ignored.join(" ")),
    };
    Ok(Command::Print(format!("the configuration is good{ignored}\n")))
}

fn probe(args: impl Iterator<Item = OsString>, variables: &dyn Variables) -> Result<Command, Faults> {
    let arguments = Arguments::parse(flags::PROBE, args);
    match arguments.wish {
        Wish::Help => return Ok(Command::Print(help::probe(flags::PROBE))),
        Wish::Version => return Ok(Command::Print(format!("{}\n", help::version()))),
        Wish::Run => {}
    }
    let mut reader = Reader { arguments, variables };
    let plugin_dir = reader.read(&flags::PROBE_PLUGIN_DIR, value::directory);
    let endpoint = match reader.read(&flags::PROBE_ENDPOINT, value::socket) {
        Some(path) => Some(path),
        None => reader.default_endpoint(plugin_dir.as_deref()),
    };
    let ready = reader.read(&flags::PROBE_READY, value::switch);
    let timeout = reader.read(&flags::PROBE_TIMEOUT, |text| {
        value::duration(text, Duration::from_secs(1), Duration::from_secs(60))
    });
    let args = (|| Some(ProbeArgs { endpoint: endpoint?, ready: ready?, timeout: timeout? }))();
    reader.finish(args.map(Command::Probe))
}

#[cfg(feature = "kube")]
fn inventory_command(
    name: &str,
    args: impl Iterator<Item = OsString>,
    variables: &dyn Variables,
) -> Result<Command, Faults> {
    if name == "volumes" { inventory::volumes(args, variables) } else { inventory::orphans(args, variables) }
}

#[cfg(not(feature = "kube"))]
fn inventory_command(
    name: &str,
    _: impl Iterator<Item = OsString>,
    _: &dyn Variables,
) -> Result<Command, Faults> {
    Err(Faults(vec![Fault::plain(format!(
        "this csi-udisk was built without the command {name} (cargo feature \"kube\")"
    ))]))
}

#[cfg(feature = "sandbox")]
fn sandbox(args: impl Iterator<Item = OsString>) -> Result<Command, Faults> {
    let arguments = Arguments::parse(flags::SANDBOX, args);
    match arguments.wish {
        Wish::Help => return Ok(Command::Print(help::sandbox(flags::SANDBOX))),
        Wish::Version => return Ok(Command::Print(format!("{}\n", help::version()))),
        Wish::Run => {}
    }
    let nothing = |_: &str| None;
    let mut reader = Reader { arguments, variables: &nothing };
    let serve = reader.read(&flags::SERVE, value::switch);
    let cloud_only = reader.read(&flags::CLOUD_ONLY, value::switch);
    let latency = reader.read(&flags::LATENCY, value::latency);
    let dir = reader.read(&flags::DIR, |text| Ok(PathBuf::from(text)));
    let args = (|| Some(SandboxArgs { serve: serve?, cloud_only: cloud_only?, latency: latency?, dir }))();
    if let Some(SandboxArgs { serve: false, cloud_only: true, .. }) = args {
        reader.arguments.faults.push(Fault::of(&flags::CLOUD_ONLY, "needs --serve"));
    }
    reader.finish(args.map(Command::Sandbox))
}

#[cfg(not(feature = "sandbox"))]
fn sandbox(_: impl Iterator<Item = OsString>) -> Result<Command, Faults> {
    Err(Faults(vec![Fault::plain(
        "this csi-udisk was built without the sandbox (cargo feature \"sandbox\")",
    )]))
}

struct Reader<'v> {
    arguments: Arguments,
    variables: &'v dyn Variables,
}

impl Reader<'_> {
    /// The parsed value of a flag. `None`: not set, or a fault that has been noted.
    fn read<T>(&mut self, flag: &'static Flag, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.setting(flag, parse).map(|setting| setting.value)
    }

    fn setting<T>(
        &mut self,
        flag: &'static Flag,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Setting<T>> {
        let given: Given = self.arguments.given(flag, self.variables)?;
        match parse(&given.text) {
            Ok(value) => Some(Setting { value, explicit: given.origin == Origin::Flag }),
            Err(problem) => {
                self.arguments.faults.push(Fault::value(flag, &given, problem));
                None
            }
        }
    }

    fn config(mut self) -> Result<Config, Faults> {
        let mode = self.read(&flags::MODE, value::mode);
        let plugin_dir = self.read(&flags::PLUGIN_DIR, value::directory);
        let endpoint = match self.read(&flags::ENDPOINT, value::socket) {
            Some(path) => Some(path),
            None => self.default_endpoint(plugin_dir.as_deref()),
        };
        let driver_name = self.read(&flags::DRIVERNAME, value::driver_name);
        let http_endpoint = self.read(&flags::HTTP_ENDPOINT, value::listen_address);
        let metadata_endpoint = self.read(&flags::METADATA_ENDPOINT, value::base_url);
        let region = self.setting(&flags::REGION, value::word);
        let zone = self.setting(&flags::ZONE, value::zone);
        let node = self.node();
        let asks_cloud =
            mode.is_none_or(Mode::has_controller) || node.as_ref().is_some_and(|node| node.cloud_lookup);
        let cloud = self.cloud(asks_cloud);
        let log = self.log();
        let ignored = std::mem::take(&mut self.arguments.ignored);
        let config = (|| {
            Some(Config {
                mode: mode?,
                driver_name: driver_name?,
                endpoint: endpoint?,
                plugin_dir,
                http_endpoint,
                metadata_endpoint: metadata_endpoint?,
                region,
                zone,
                node: node?,
                cloud: cloud?,
                log: log?,
                ignored,
            })
        })();
        self.finish(config)
    }

    fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        match value {
            Some(value) if self.arguments.faults.is_empty() => Ok(value),
            _ => Err(Faults(self.arguments.faults)),
        }
    }

    fn default_endpoint(&mut self, plugin_dir: Option<&std::path::Path>) -> Option<PathBuf> {
        let path = plugin_dir.unwrap_or(std::path::Path::new("/csi")).join("csi.sock");
        // The directory may be too long for a socket in it.
        match value::socket(&path.to_string_lossy()) {
            Ok(path) => Some(path),
            Err(problem) => {
                self.arguments.faults.push(Fault::of(&flags::PLUGIN_DIR, format!("its csi.sock {problem}")));
                None
            }
        }
    }

    fn node(&mut self) -> Option<Node> {
        let node_id = self.read(&flags::NODE_ID, value::host_id);
        let machine_type = self.read(&flags::MACHINE_TYPE, value::word);
        let max_volumes = self.read(&flags::MAXVOLUME, value::max_volumes);
        let hostname = self.read(&flags::HOSTNAME, value::node_name);
        let kubelet_dir = self.read(&flags::KUBELET_DIR, value::directory);
        let registered_as = self.read(&flags::KUBELET_REGISTRATION_PATH, value::socket);
        let registration_dir = self.read(&flags::PLUGIN_REGISTRATION_PATH, value::directory);
        let sysfs_root = self.read(&flags::SYSFS_ROOT, value::directory);
        let dev_root = self.read(&flags::DEV_ROOT, value::directory);
        let cloud_lookup = self.read(&flags::NODE_CLOUD_LOOKUP, value::switch);
        Some(Node {
            node_id,
            machine_type,
            max_volumes: max_volumes?,
            hostname,
            kubelet_dir: kubelet_dir?,
            registration: registered_as
                .zip(registration_dir)
                .map(|(endpoint, dir)| Registration { endpoint, dir }),
            sysfs_root: sysfs_root?,
            dev_root: dev_root?,
            cloud_lookup: cloud_lookup?,
        })
    }

    fn cloud(&mut self, asks_cloud: bool) -> Option<Cloud> {
        // The server itself gives up after 60 s; a longer wait only helps through slow proxies.
        let request_time =
            |text: &str| value::duration(text, Duration::from_secs(1), Duration::from_secs(120));
        let settle_time = |text: &str| value::duration(text, Duration::ZERO, Duration::from_secs(3600));
        let api_endpoint = self.read(&flags::API_ENDPOINT, value::base_url);
        let api_timeout = self.read(&flags::API_TIMEOUT, request_time);
        let project_id = self.read(&flags::PROJECT_ID, value::word);
        let vpc_id = self.read(&flags::VPC_ID, value::word);
        let credentials = self.credentials(asks_cloud);
        let multi_attach = self.read(&flags::MULTI_ATTACH, value::multi_attach);
        let cross_pod_attach = self.read(&flags::CROSS_POD_ATTACH, value::switch);
        let create_settle = self.read(&flags::CREATE_SETTLE, settle_time);
        let read_lag = self
            .read(&flags::READ_LAG, |text| value::duration(text, Duration::ZERO, Duration::from_secs(300)));
        Some(Cloud {
            api_endpoint: api_endpoint?,
            api_timeout: api_timeout?,
            project_id,
            vpc_id,
            credentials: credentials?,
            multi_attach: multi_attach?,
            cross_pod_attach: cross_pod_attach?,
            create_settle: create_settle?,
            read_lag: read_lag?,
        })
    }

    fn credentials(&mut self, asks_cloud: bool) -> Option<Credentials> {
        let directory = self.read(&flags::CREDENTIALS_DIR, value::directory);
        let role = self.read(&flags::STS_ROLE, value::word);
        let role_v2 = self.read(&flags::STS_ROLE_V2, value::word);
        // A node with an old ConfigMap has keys in its environment; it must not even hold them.
        let pairs = if asks_cloud { &flags::KEY_VARIABLES[..] } else { &[] };
        for &(public_name, private_name) in pairs {
            match (self.secret(public_name), self.secret(private_name)) {
                (None, None) => {}
                (Some(public), Some(private)) => return Some(Credentials::Keys { public, private }),
                (Some(_), None) => {
                    return self
                        .fault(format!("{private_name}: not set, but {public_name} is; set both or none"));
                }
                (None, Some(_)) => {
                    return self
                        .fault(format!("{public_name}: not set, but {private_name} is; set both or none"));
                }
            }
        }
        match directory {
            Some(directory) => Some(Credentials::Directory(directory)),
            None => Some(Credentials::Sts { role: role?, role_v2: role_v2? }),
        }
    }

    fn secret(&mut self, name: &'static str) -> Option<SecretString> {
        match self.variables.get(name)?.into_string() {
            // Secrets made with `echo` end in a newline, which no key holds.
            Ok(text) => Some(text.trim()).filter(|text| !text.is_empty()).map(SecretString::from),
            Err(_) => self.fault(format!("{name}: is not valid UTF-8")),
        }
    }

    fn fault<T>(&mut self, text: String) -> Option<T> {
        self.arguments.faults.push(Fault::plain(text));
        None
    }

    fn log(&mut self) -> Option<Log> {
        let format = self.read(&flags::LOG_FORMAT, value::log_format);
        let by_verbosity = self.read(&flags::V, value::verbosity);
        let by_filter = self.read(&flags::LOG, value::filter);
        Some(Log { format: format?, filter: by_filter.or(by_verbosity)? })
    }
}
