//! Where this process runs: what flags, variables and the metadata service say together.

use std::future::Future;
use std::time::Duration;

use crate::config::{Config, Setting};
use crate::node::NodeIdentity;
use crate::ucloud::Instance;
use crate::volume::Zone;
use crate::volume::machine::takes_rdma_disks;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A host that has no metadata service for hours is asked about it twice a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is not known, by the flags that would tell it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("neither the metadata service nor {} says it", .0.join(", "))]
pub(super) struct Missing(pub(super) Vec<&'static str>);

/// Collects values and the flags of those that are missing.
#[derive(Debug, Default)]
struct Gather(Vec<&'static str>);

impl Gather {
    fn need<T>(&mut self, flag: &'static str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.0.push(flag);
        }
        value
    }

    fn finish<T>(self, place: Option<T>) -> Result<T, Missing> {
        place.ok_or(Missing(self.0))
    }
}

/// The place of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ControllerPlace {
    pub(super) region: String,
    pub(super) zone: Zone,
}

impl ControllerPlace {
    /// Before the metadata service was asked there is no `metadata`.
    pub(super) fn resolve(config: &Config, metadata: Option<&Instance>) -> Result<Self, Missing> {
        let mut gather = Gather::default();
        let region = config.region.as_ref().map(|region| region.value.clone());
        let region = gather.need("--region", region.or_else(|| metadata?.region.clone()));
        let zone = config.zone.as_ref().map(|zone| zone.value.clone());
        let zone = gather.need("--zone", zone.or_else(|| metadata?.zone.clone()));
        gather.finish(region.zip(zone).map(|(region, zone)| Self { region, zone }))
    }
}

/// Finds out who a node is. What it says becomes a label of the Node that can never change, so nothing is guessed.
pub(super) fn node_identity(config: &Config, metadata: Option<&Instance>) -> Result<NodeIdentity, Missing> {
    let mut gather = Gather::default();
    let host = config.node.node_id.clone().or_else(|| metadata?.id.clone());
    let host = gather.need("--node-id", host);
    let region = of_this_host(config.region.as_ref(), metadata.map(|said| said.region.as_ref()));
    let region = gather.need("--region", region);
    let zone = of_this_host(config.zone.as_ref(), metadata.map(|said| said.zone.as_ref()));
    let zone = gather.need("--zone", zone);
    let machine_type = config.node.machine_type.as_deref().or_else(|| metadata?.machine_type.as_deref());
    let rssd = match &host {
        Some(host) => gather.need("--machine-type", takes_rdma_disks(host, machine_type)),
        None => None,
    };
    let identity = (|| Some(NodeIdentity { host: host?, region: region?, zone: zone?, rssd: rssd? }))();
    gather.finish(identity)
}

/// What kubelet accepted since the host booted, unless a flag says something else: without the metadata service, the
/// truth of the others is unknown then. Kubelet unmounts nothing through a driver that is not registered, so a driver
/// that is restarted while the service is away must not wait for it.
pub(super) fn remembered_identity(config: &Config, before: NodeIdentity) -> Option<NodeIdentity> {
    fn agrees<T: PartialEq>(setting: Option<&Setting<T>>, before: &T) -> bool {
        setting.is_none_or(|setting| !setting.explicit || setting.value == *before)
    }
    let machine_type = config.node.machine_type.as_deref();
    let agrees = config.node.node_id.as_ref().is_none_or(|host| *host == before.host)
        && agrees(config.region.as_ref(), &before.region)
        && agrees(config.zone.as_ref(), &before.zone)
        && machine_type.is_none_or(|name| takes_rdma_disks(&before.host, Some(name)) == Some(before.rssd));
    agrees.then_some(before)
}

/// A setting of a node: flag, then metadata, then variable. One ConfigMap, and so one variable, serves all nodes
/// of a cluster, which may span zones; the metadata service speaks of this host.
fn of_this_host<T: Clone>(setting: Option<&Setting<T>>, metadata: Option<Option<&T>>) -> Option<T> {
    let (value, explicit) = match setting {
        Some(setting) => (Some(&setting.value), setting.explicit),
        None => (None, false),
    };
    if explicit {
        return value.cloned();
    }
    metadata?.or(value).cloned()
}

/// Asks the metadata service until the place is known; `waiting` hears what for. A failed answer counts as an
/// empty one: then flags and variables stand alone, if they are enough; if they are not, `remembered` may know.
pub(super) async fn find<T, F>(
    resolve: impl Fn(Option<&Instance>) -> Result<T, Missing>,
    ask: impl Fn() -> F,
    remembered: impl Fn() -> Option<T>,
    waiting: impl Fn(&str),
) -> T
where
    F: Future<Output = Result<Instance, String>>,
{
    if let Ok(place) = resolve(None) {
        return place;
    }
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        let (metadata, trouble) = match ask().await {
            Ok(metadata) => (metadata, None),
            Err(trouble) => (Instance::default(), Some(trouble)),
        };
        let missing = match resolve(Some(&metadata)) {
            Ok(place) => return place,
            Err(missing) => missing,
        };
        let why = match trouble {
            Some(trouble) => {
                if let Some(place) = remembered() {
                    tracing::warn!(
                        "{missing}: {trouble}; taken is what kubelet accepted since this host booted, for it holds still"
                    );
                    return place;
                }
                format!("{missing}: {trouble}")
            }
            None => missing.to_string(),
        };
        if said != why {
            tracing::warn!("not ready yet: {why}");
            waiting(&why);
            said = why;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::ffi::OsString;

    use tokio::time::Instant;

    use super::*;
    use crate::config::{Command, parse};
    use crate::volume::HostId;

    fn config(line: &str, variables: &[(&str, &str)]) -> Config {
        let look = |asked: &str| {
            variables.iter().find(|(name, _)| *name == asked).map(|(_, value)| OsString::from(value))
        };
        match parse(line.split_whitespace().map(OsString::from), &look) {
            Ok(Command::Run(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    fn metadata() -> Instance {
        Instance {
            region: Some("cn-bj2".into()),
            zone: Some(Zone::parse("cn-bj2-05").unwrap()),
            id: Some(HostId::parse("uhost-m").unwrap()),
            machine_type: Some("N".into()),
            ..Instance::default()
        }
    }

    fn text(identity: Result<NodeIdentity, Missing>) -> String {
        match identity {
            Ok(node) => format!("{} {} {} {}", node.host, node.region, node.zone, node.rssd),
            Err(Missing(flags)) => flags.join(" "),
        }
    }

    const ALL_FLAGS: &str = "--node-id uhost-f --region r-f --zone z-f --machine-type OS";
    const VARIABLES: &[(&str, &str)] = &[("UCLOUD_REGION_ID", "r-v"), ("UCLOUD_ZONE_ID", "z-v")];

    #[test]
    fn a_node_takes_flags_then_metadata_then_variables() {
        let full = metadata();
        let bare = Instance { machine_type: None, ..metadata() };
        let no_zone = Instance { zone: None, ..metadata() };
        let nothing = Instance::default();
        let metal = Instance { id: Some(HostId::parse("upm-m").unwrap()), ..bare.clone() };
        for (line, variables, metadata, expected) in [
            (ALL_FLAGS, VARIABLES, None, "uhost-f r-f z-f true"),
            (ALL_FLAGS, &[][..], Some(&full), "uhost-f r-f z-f true"),
            ("", &[], Some(&full), "uhost-m cn-bj2 cn-bj2-05 false"),
            // Before metadata was asked, variables do not count; after, they fill gaps only.
            ("--node-id uhost-f --machine-type N", VARIABLES, None, "--region --zone"),
            ("", VARIABLES, Some(&full), "uhost-m cn-bj2 cn-bj2-05 false"),
            ("", VARIABLES, Some(&no_zone), "uhost-m cn-bj2 z-v false"),
            ("--node-id uhost-f --machine-type N", VARIABLES, Some(&nothing), "uhost-f r-v z-v false"),
            // A machine type is never guessed, but bare metal needs none.
            ("", VARIABLES, Some(&bare), "--machine-type"),
            ("--machine-type OMAX", &[], Some(&bare), "uhost-m cn-bj2 cn-bj2-05 true"),
            ("", &[], Some(&metal), "upm-m cn-bj2 cn-bj2-05 true"),
            ("", &[], Some(&nothing), "--node-id --region --zone"),
        ] {
            let identity = node_identity(&config(line, variables), metadata);
            assert_eq!(text(identity), expected, "{line:?} {variables:?} {metadata:?}");
        }
    }

    #[test]
    fn a_controller_takes_flags_and_variables_then_metadata() {
        let place = |line, variables, metadata: Option<&Instance>| {
            ControllerPlace::resolve(&config(line, variables), metadata)
                .map(|place| format!("{} {}", place.region, place.zone))
                .unwrap_or_else(|Missing(flags)| flags.join(" "))
        };
        assert_eq!(place("", VARIABLES, None), "r-v z-v");
        assert_eq!(place("--zone z-f", VARIABLES, Some(&metadata())), "r-v z-f");
        assert_eq!(place("", &[("UCLOUD_REGION_ID", "r-v")], None), "--zone");
        assert_eq!(place("", &[("UCLOUD_REGION_ID", "r-v")], Some(&metadata())), "r-v cn-bj2-05");
        assert_eq!(place("", &[], Some(&Instance::default())), "--region --zone");
    }

    #[tokio::test]
    async fn what_flags_say_needs_no_metadata_service() {
        let config = config(ALL_FLAGS, &[]);
        let resolve = |metadata: Option<&Instance>| node_identity(&config, metadata);
        let ask = || std::future::pending::<Result<Instance, String>>();
        let waiting = |why: &str| panic!("{why}");
        assert_eq!(find(resolve, ask, || panic!("memory was asked"), waiting).await.host.as_str(), "uhost-f");
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_the_metadata_service_and_says_so_once_per_reason() {
        let config = config("", &[]);
        let resolve = |metadata: Option<&Instance>| node_identity(&config, metadata);
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            let answer = match asked.get() {
                1..=8 => Err("connection refused".to_owned()),
                9 => Ok(Instance { machine_type: None, ..metadata() }),
                _ => Ok(metadata()),
            };
            async move { answer }
        };
        let reasons = RefCell::new(Vec::new());
        let since = Instant::now();
        let identity = find(resolve, ask, || None, |why| reasons.borrow_mut().push(why.to_owned())).await;
        assert_eq!(identity.host.as_str(), "uhost-m");
        assert_eq!(
            *reasons.borrow(),
            [
                "neither the metadata service nor --node-id, --region, --zone says it: connection refused",
                "neither the metadata service nor --machine-type says it",
            ]
        );
        // 0.5 + 1 + 2 + 4 + 8 + 16 + 3 × 30 s: patient with a service that is down, never silent for long.
        assert_eq!(since.elapsed(), Duration::from_millis(121_500));
    }

    fn before() -> NodeIdentity {
        node_identity(&config("", &[]), Some(&metadata())).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_accepted_before_stands_in_for_a_metadata_service_that_does_not_answer() {
        let config = config("", &[]);
        let resolve = |metadata: Option<&Instance>| node_identity(&config, metadata);
        let ask = async || Err("connection refused".to_owned());
        let waiting = |why: &str| panic!("{why}");
        assert_eq!(find(resolve, ask, || Some(before()), waiting).await, before());

        // One that answers is believed, also that it does not know the type.
        let answers = RefCell::new(vec![Ok(metadata()), Ok(Instance { machine_type: None, ..metadata() })]);
        let ask = || {
            let answer = answers.borrow_mut().pop().unwrap();
            async move { answer }
        };
        let reasons = RefCell::new(Vec::new());
        let waiting = |why: &str| reasons.borrow_mut().push(why.to_owned());
        find(resolve, ask, || panic!("memory was asked"), waiting).await;
        assert_eq!(*reasons.borrow(), ["neither the metadata service nor --machine-type says it"]);
    }

    #[test]
    fn memory_yields_to_flags() {
        let agrees = |line: &str| {
            remembered_identity(&config(line, &[]), before()).is_some_and(|node| node == before())
        };
        for line in ["", "--node-id uhost-m", "--region cn-bj2 --zone cn-bj2-05", "--machine-type C"] {
            assert!(agrees(line), "{line}");
        }
        for line in ["--node-id uhost-n", "--region cn-sh2", "--zone cn-bj2-04", "--machine-type O"] {
            assert!(!agrees(line), "{line}");
        }
        // A variable serves all nodes of a cluster, which may span zones.
        let variables = config("", VARIABLES);
        assert_eq!(remembered_identity(&variables, before()), Some(before()));
    }
}
