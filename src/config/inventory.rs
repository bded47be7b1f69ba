//! The arguments of `csi-udisk volumes` and `csi-udisk orphans`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::args::{Arguments, Wish};
use super::flags::{self, Flag};
use super::{Cloud, Command, Fault, Faults, Reader, Setting, Variables, help, value};
use crate::telemetry::log::{Format, Log};
use crate::volume::DiskId;

/// What is compared.
#[derive(Debug)]
pub enum Comparison {
    /// The cluster's volumes with their disks.
    Volumes(VolumesArgs),
    /// The cloud's disks with all that may refer to them.
    Orphans(OrphansArgs),
}

impl Comparison {
    pub fn common(&self) -> &InventoryArgs {
        match self {
            Self::Volumes(args) => &args.common,
            Self::Orphans(args) => &args.common,
        }
    }
}

/// What both commands need.
#[derive(Debug)]
pub struct InventoryArgs {
    pub output: Output,
    pub kubernetes: Kubernetes,
    pub cloud: Cloud,
    pub region: Option<Setting<String>>,
    pub metadata_endpoint: Url,
    pub driver_name: String,
    /// Between two readings.
    pub recheck: Duration,
    /// For one reading of either side.
    pub timeout: Duration,
    pub log: Log,
}

/// Where the cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    pub kubeconfig: Vec<PathBuf>,
    /// The file that kubectl looks for.
    pub home: Option<PathBuf>,
    pub context: Option<String>,
}

/// How the result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Text,
    Wide,
    Json,
}

/// The arguments of `csi-udisk volumes`.
#[derive(Debug)]
pub struct VolumesArgs {
    pub common: InventoryArgs,
    pub name_prefix: Option<String>,
    pub stuck_after: Duration,
}

/// The arguments of `csi-udisk orphans`.
#[derive(Debug)]
pub struct OrphansArgs {
    pub common: InventoryArgs,
    pub older_than: Duration,
    /// The marks of this cluster's disks.
    pub name_prefix: Option<String>,
    pub business_group: Option<String>,
    pub delete: bool,
    /// The only ones that may be deleted; given, they also count as confirmed where nobody can be asked.
    pub ids: Vec<DiskId>,
}

const ABOUT_VOLUMES: &str = "Shows every volume of the cluster with its disk and its attachment, and what disagrees \
     between Kubernetes and the cloud. Changes nothing.";
const ABOUT_ORPHANS: &str = "Lists disks that bear the name of a volume and that nothing in the cluster refers to, \
     seen in two complete readings. Deletes only what is asked for with --delete, and only with a mark that tells \
     this cluster's disks from those of others.";
const STATUS_VOLUMES: &str = "Exit status: 0 when nothing disagrees, 2 when something does, 1 when either side could \
     not be read whole, 64 for a fault in the configuration.";
const STATUS_ORPHANS: &str = "Exit status: 0 when there are none (left), 2 when there are, 1 when either side could not \
     be read whole or something was not deleted that should be, 64 for a fault in the configuration.";

/// Flags of the driver that these commands have, too.
static SHARED: &[&Flag] = &[
    &flags::DRIVERNAME,
    &flags::API_ENDPOINT,
    &flags::API_TIMEOUT,
    &flags::METADATA_ENDPOINT,
    &flags::REGION,
    &flags::PROJECT_ID,
    &flags::CREDENTIALS_DIR,
    &flags::STS_ROLE,
    &flags::STS_ROLE_V2,
];

pub(super) fn volumes(
    args: impl Iterator<Item = OsString>,
    variables: &dyn Variables,
) -> Result<Command, Faults> {
    let tables = [flags::VOLUMES, flags::KUBERNETES, SHARED];
    let mut reader = match open("volumes", ABOUT_VOLUMES, STATUS_VOLUMES, tables, args, variables) {
        Ok(reader) => reader,
        Err(text) => return Ok(text),
    };
    let stuck_time = |text: &str| value::duration(text, Duration::from_secs(60), Duration::from_secs(86_400));
    let recheck_time = |text: &str| value::duration(text, Duration::ZERO, Duration::from_secs(3600));
    let name_prefix = reader.read(&flags::VOLUMES_NAME_PREFIX, value::csi_prefix);
    let stuck_after = reader.read(&flags::STUCK_AFTER, stuck_time);
    let recheck = reader.read(&flags::VOLUMES_RECHECK, recheck_time);
    let common = common(&mut reader, recheck);
    let args = (|| Some(VolumesArgs { common: common?, name_prefix, stuck_after: stuck_after? }))();
    reader.finish(args.map(|args| Command::Compare(Box::new(Comparison::Volumes(args)))))
}

pub(super) fn orphans(
    args: impl Iterator<Item = OsString>,
    variables: &dyn Variables,
) -> Result<Command, Faults> {
    let tables = [flags::ORPHANS, flags::KUBERNETES, SHARED];
    let mut reader = match open("orphans", ABOUT_ORPHANS, STATUS_ORPHANS, tables, args, variables) {
        Ok(reader) => reader,
        Err(text) => return Ok(text),
    };
    // A disk is on its way into the cluster for minutes at most, and its provisioner may pause for five between tries.
    let age =
        |text: &str| value::duration(text, Duration::from_secs(600), Duration::from_secs(87_600 * 3600));
    let recheck_time = |text: &str| value::duration(text, Duration::from_secs(1), Duration::from_secs(3600));
    let older_than = reader.read(&flags::OLDER_THAN, age);
    let name_prefix = reader.read(&flags::ORPHANS_NAME_PREFIX, value::name_mark);
    let business_group = reader.read(&flags::BUSINESS_GROUP, value::group_mark);
    let delete = reader.read(&flags::DELETE, value::switch);
    let ids = reader.read(&flags::IDS, value::disk_ids).unwrap_or_default();
    if delete == Some(true) && name_prefix.is_none() && business_group.is_none() {
        reader.arguments.faults.push(Fault::of(
            &flags::DELETE,
            "needs a mark that tells this cluster's disks from those of others in the account: --volume-name-prefix \
             or --business-group",
        ));
    }
    if delete == Some(false) && !ids.is_empty() {
        reader.arguments.faults.push(Fault::of(&flags::IDS, "needs --delete"));
    }
    let recheck = reader.read(&flags::ORPHANS_RECHECK, recheck_time);
    let common = common(&mut reader, recheck);
    let args = (|| {
        Some(OrphansArgs {
            common: common?,
            older_than: older_than?,
            name_prefix,
            business_group,
            delete: delete?,
            ids,
        })
    })();
    reader.finish(args.map(|args| Command::Compare(Box::new(Comparison::Orphans(args)))))
}

/// The reader of a command's flags, or what to print instead.
fn open<'v>(
    command: &str,
    about: &str,
    status: &str,
    tables: [&[&'static Flag]; 3],
    args: impl Iterator<Item = OsString>,
    variables: &'v dyn Variables,
) -> Result<Reader<'v>, Command> {
    let table = tables.concat();
    let arguments = Arguments::parse(&table, args);
    match arguments.wish {
        Wish::Help => Err(Command::Print(help::inventory(command, about, status, &table))),
        Wish::Version => Err(Command::Print(format!("{}\n", help::version()))),
        Wish::Run => Ok(Reader { arguments, variables }),
    }
}

fn common(reader: &mut Reader<'_>, recheck: Option<Duration>) -> Option<InventoryArgs> {
    let output = reader.read(&flags::OUTPUT, value::output);
    let kubeconfig = reader.read(&flags::KUBECONFIG, |text| {
        Ok(std::env::split_paths(text).filter(|path| !path.as_os_str().is_empty()).collect())
    });
    let context = reader.read(&flags::CONTEXT, |text| Ok(text.to_owned()));
    let home = reader.variables.get("HOME").filter(|home| !home.is_empty());
    let home = home.map(|home| PathBuf::from(home).join(".kube/config"));
    let timeout = reader.read(&flags::TIMEOUT, |text| {
        value::duration(text, Duration::from_secs(1), Duration::from_secs(3600))
    });
    let log = reader.read(&flags::INVENTORY_LOG, value::filter);
    let driver_name = reader.read(&flags::DRIVERNAME, value::driver_name);
    let metadata_endpoint = reader.read(&flags::METADATA_ENDPOINT, value::base_url);
    let region = reader.setting(&flags::REGION, value::word);
    let cloud = reader.cloud(true);
    Some(InventoryArgs {
        output: output?,
        kubernetes: Kubernetes { kubeconfig: kubeconfig.unwrap_or_default(), home, context },
        cloud: cloud?,
        region,
        metadata_endpoint: metadata_endpoint?,
        driver_name: driver_name?,
        recheck: recheck?,
        timeout: timeout?,
        log: Log { format: Format::Text, filter: log? },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config::parse;

    fn run(line: &str, variables: &str) -> Result<Command, Vec<String>> {
        let map: HashMap<&str, &str> =
            variables.split_whitespace().map(|word| word.split_once('=').unwrap()).collect();
        let look = |name: &str| map.get(name).map(OsString::from);
        parse(line.split_whitespace().map(OsString::from), &look)
            .map_err(|Faults(faults)| faults.iter().map(ToString::to_string).collect())
    }

    fn comparison(line: &str, variables: &str) -> Comparison {
        match run(line, variables) {
            Ok(Command::Compare(what)) => *what,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn of_orphans(line: &str) -> OrphansArgs {
        match comparison(line, "") {
            Comparison::Orphans(args) => args,
            other @ Comparison::Volumes(_) => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn defaults_and_what_the_environment_of_a_controller_says() {
        let Comparison::Volumes(args) = comparison("volumes", "") else { panic!("not volumes") };
        assert_eq!(
            (args.stuck_after, args.common.recheck),
            (Duration::from_secs(600), Duration::from_secs(10))
        );
        assert_eq!(args.name_prefix.as_deref(), Some("pvc"));
        assert_eq!(args.common.output, Output::Text);
        assert_eq!(args.common.driver_name, "udisk.csi.ucloud.cn");
        let nowhere = Kubernetes { kubeconfig: Vec::new(), home: None, context: None };
        assert_eq!(args.common.kubernetes, nowhere);

        let variables = "KUBECONFIG=/a::/b HOME=/root UCLOUD_REGION_ID=cn-bj2 UCLOUD_PROJECT_ID=org-1 \
                         UCLOUD_ACCESS_PUBKEY=p UCLOUD_ACCESS_PRIKEY=k";
        let what = comparison("orphans --context prod --output=json", variables);
        let common = what.common();
        assert_eq!(common.kubernetes.kubeconfig, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(common.kubernetes.home, Some(PathBuf::from("/root/.kube/config")));
        assert_eq!(common.kubernetes.context.as_deref(), Some("prod"));
        assert_eq!(common.region.as_ref().map(|region| region.value.as_str()), Some("cn-bj2"));
        assert_eq!(common.cloud.project_id.as_deref(), Some("org-1"));
        assert!(matches!(common.cloud.credentials, crate::config::Credentials::Keys { .. }));
        assert_eq!((common.output, common.recheck), (Output::Json, Duration::from_secs(60)));
    }

    #[test]
    fn deleting_needs_a_mark() {
        let args = of_orphans("orphans --delete --volume-name-prefix prod-a --ids bs-1,bsm-2");
        assert!(args.delete);
        assert_eq!(args.ids.iter().map(DiskId::as_str).collect::<Vec<_>>(), ["bs-1", "bsm-2"]);
        assert!(of_orphans("orphans --delete --business-group cluster-a").delete);
        assert_eq!(of_orphans("orphans").older_than, Duration::from_secs(86_400));
        for (line, words) in [
            ("orphans --delete", &["--delete", "--volume-name-prefix", "--business-group"][..]),
            ("orphans --delete --volume-name-prefix pvc", &["\"pvc\"", "every cluster"]),
            ("orphans --volume-name-prefix a.b", &["a.b", "hashes"]),
            ("orphans --volume-name-prefix Prod", &["Prod", "small letters"]),
            ("orphans --volume-name-prefix abcdefghijklmnopqrstuvwxyza", &["hashes", "26"]),
            ("orphans --business-group Default", &["Default", "tells nothing"]),
            ("orphans --ids bs-1", &["--ids", "needs --delete"]),
            ("orphans --delete --business-group a --ids bs-1,", &["--ids", "is empty"]),
            ("orphans --older-than 9m", &["600s"]),
            ("orphans --recheck 0s", &["1s"]),
            ("volumes --output yaml", &["text, wide, json"]),
            ("volumes --delete", &["--delete is not a flag"]),
            ("volumes --stuck-after 1s", &["60s"]),
        ] {
            let faults = run(line, "").unwrap_err();
            for word in words {
                assert!(faults.iter().any(|fault| fault.contains(word)), "{line}: {faults:?} lacks {word:?}");
            }
        }
    }

    #[test]
    fn help_names_every_flag_and_the_exit_status() {
        for (line, words) in [
            (
                "volumes --help",
                ["csi-udisk volumes [FLAGS]", "--stuck-after", "--kubeconfig", "2 when something does"],
            ),
            (
                "orphans --help",
                ["csi-udisk orphans [FLAGS]", "--ids", "--api-endpoint", "UCLOUD_ACCESS_PUBKEY"],
            ),
            ("--help", ["csi-udisk volumes [--help]", "csi-udisk orphans [--help]", "--mode", "--endpoint"]),
        ] {
            let Ok(Command::Print(help)) = run(line, "") else { panic!("no help for {line}") };
            for word in words {
                assert!(help.contains(word), "{line} lacks {word:?}:\n{help}");
            }
            assert!(help.lines().all(|line| line.len() <= 120), "{help}");
        }
    }
}
