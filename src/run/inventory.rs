//! `csi-udisk volumes` and `csi-udisk orphans`: reads both sides, has them compared, prints, and deletes what was
//! confirmed.

mod deletion;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::ASK_WITHIN;
use crate::cloud::{CloudError, Deadline, Disk, DiskFilter, Prices as _, Unreadable};
use crate::config::{Comparison, EXIT_FAILURE, EXIT_FOUND, InventoryArgs, OrphansArgs, Output, VolumesArgs};
use crate::controller::pages;
use crate::inventory::cluster::Cluster;
use crate::inventory::names::COMMON_PREFIX;
use crate::inventory::orphans::{self, Marks, Rule, Sorted};
use crate::inventory::report::{self, Fate, Format, Orphans, PriceList, price_class};
use crate::inventory::volumes::{Row, View, confirmed, join};
use crate::kubernetes::{Access, ConnectError, Kubernetes, ListError};
use crate::ucloud::{BuildError, Metadata, ReqwestTransport, UCloud};

/// Prices only inform, so they are not waited for long.
const PRICES_WITHIN: Duration = Duration::from_secs(20);

/// What a command has to tell a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Clean,
    Found,
    /// Something was to be done, and was not.
    Undone,
}

impl Verdict {
    /// The exit status.
    pub fn status(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Found => EXIT_FOUND,
            Self::Undone => EXIT_FAILURE,
        }
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Cluster(#[from] ListError),
    #[error("the disks cannot be listed: {0}")]
    Disks(CloudError),
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] BuildError),
    #[error("the region is not known: --region does not say it, and {0}")]
    NoRegion(String),
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
    #[error("nothing is deleted: {0}")]
    Refused(String),
}

/// Both sides.
#[derive(Debug)]
struct Sides {
    cloud: UCloud,
    kubernetes: Kubernetes,
    driver: String,
    timeout: Duration,
    /// Where the disks are, in words.
    account: String,
}

/// What one look at both sides tells of disks that nothing refers to.
#[derive(Debug)]
struct Reading {
    disks: Vec<Disk>,
    unreadable: Vec<Unreadable>,
    sorted: Sorted,
}

/// Does what the command line asks for.
pub async fn run(what: Comparison) -> Result<Verdict, InventoryError> {
    match what {
        Comparison::Volumes(args) => volumes(args).await,
        Comparison::Orphans(args) => orphans(args).await,
    }
}

async fn volumes(args: VolumesArgs) -> Result<Verdict, InventoryError> {
    let common = &args.common;
    let sides = Sides::open(common).await?;
    let view = || View {
        driver: sides.driver.clone(),
        name_prefix: args.name_prefix.clone().unwrap_or_else(|| COMMON_PREFIX.to_owned()),
        now: now(),
        stuck_after: args.stuck_after.as_secs(),
        account: sides.account.clone(),
    };
    let look = async || -> Result<Vec<Row>, InventoryError> {
        let (disks, unreadable) = sides.disks().await?;
        let cluster = sides.kubernetes.read(&sides.driver, None, sides.timeout).await?;
        Ok(join(&cluster, &disks, &unreadable, &view()))
    };
    let odd = |rows: &[Row]| rows.iter().any(|row| !row.findings.is_empty());
    let mut rows = look().await?;
    if odd(&rows) && !common.recheck.is_zero() {
        tokio::time::sleep(common.recheck).await;
        rows = confirmed(&rows, look().await?);
    }
    print(&report::volumes(&rows, &sides.place(), format(common.output)))?;
    Ok(if odd(&rows) { Verdict::Found } else { Verdict::Clean })
}

/// Lists orphans, and deletes those that are confirmed.
async fn orphans(args: OrphansArgs) -> Result<Verdict, InventoryError> {
    let common = &args.common;
    let sides = Sides::open(common).await?;
    let marks = Marks { name_prefix: args.name_prefix.clone(), business_group: args.business_group.clone() };
    let rule = || Rule {
        driver: sides.driver.clone(),
        now: now(),
        older_than: args.older_than.as_secs(),
        marks: marks.clone(),
    };
    let mut reading = sides.unused(&rule()).await?;
    if !reading.sorted.orphans.is_empty() {
        tokio::time::sleep(common.recheck).await;
        let first = std::mem::replace(&mut reading, sides.unused(&rule()).await?);
        reading.sorted = orphans::seen_twice(&first.sorted, reading.sorted);
    }
    let Reading { disks, unreadable, sorted } = reading;
    let prices = sides.prices(&sorted).await;
    let show = |fates: &BTreeMap<String, Fate>| {
        let (now, place) = (now(), sides.place());
        let report = Orphans {
            sorted: &sorted,
            unreadable: &unreadable,
            marks: &marks,
            prices: &prices,
            now,
            account: &place,
            fates,
        };
        print(&report.print(format(common.output)))
    };
    if !args.delete || sorted.orphans.is_empty() {
        show(&BTreeMap::new())?;
        // Ids that are not orphans are told even when there are none at all.
        deletion::targets(&sorted, &args.ids).map_err(InventoryError::Refused)?;
        let clean = sorted.orphans.is_empty() && unreadable.is_empty();
        return Ok(if clean { Verdict::Clean } else { Verdict::Found });
    }
    // People see what they are asked about; a program gets one answer.
    let people = common.output != Output::Json;
    if people {
        show(&BTreeMap::new())?;
    }
    let fates = sides.delete(&disks, &sorted, &args, rule).await?;
    if people {
        for (id, fate) in &fates {
            print(&format!("{id}: {fate}\n"))?;
        }
    } else {
        show(&fates)?;
    }
    let undone = fates.values().any(|fate| matches!(fate, Fate::Refused(_) | Fate::Failed(_)));
    let deleted = fates.values().filter(|fate| **fate == Fate::Deleted).count();
    Ok(match (undone, sorted.orphans.len() + unreadable.len() - deleted) {
        (true, _) => Verdict::Undone,
        (false, 0) => Verdict::Clean,
        (false, _) => Verdict::Found,
    })
}

impl Sides {
    async fn open(args: &InventoryArgs) -> Result<Self, InventoryError> {
        let config = &args.kubernetes;
        let access = Access {
            kubeconfig: config.kubeconfig.clone(),
            home: config.home.clone(),
            context: config.context.clone(),
        };
        let kubernetes = Kubernetes::connect(&access).await?;
        let region = region(args).await?;
        let cloud = super::access::Access::new(&args.cloud, &args.metadata_endpoint)?;
        let project = match &args.cloud.project_id {
            Some(project) => format!("project {project}"),
            None => "the default project".to_owned(),
        };
        Ok(Self {
            account: format!("region {region}, {project}"),
            cloud: cloud.client(&args.cloud, &region, Arc::new(())),
            kubernetes,
            driver: args.driver_name.clone(),
            timeout: args.timeout,
        })
    }

    /// Where the result comes from, for people who have several clusters and accounts.
    fn place(&self) -> String {
        format!("{}; {}", self.account, self.kubernetes.name)
    }

    fn deadline(&self) -> Deadline {
        Instant::now() + self.timeout
    }

    /// All disks of the account, and of some perhaps no more than that they are there; or an error.
    async fn disks(&self) -> Result<(Vec<Disk>, Vec<Unreadable>), InventoryError> {
        let filter = DiskFilter { bills: true, ..DiskFilter::default() };
        let (mut disks, mut unreadable) = (Vec::new(), Vec::new());
        let take = |disk| match disk {
            Ok(disk) => disks.push(disk),
            Err(disk) => unreadable.push(disk),
        };
        pages::disks(&self.cloud, &filter, self.deadline(), take).await.map_err(InventoryError::Disks)?;
        Ok((disks, unreadable))
    }

    /// The disks first, the cluster after them: what is made in between has its reference then.
    async fn unused(&self, rule: &Rule) -> Result<Reading, InventoryError> {
        let (disks, unreadable) = self.disks().await?;
        let wanted = orphans::wanted(&disks, &rule.marks);
        let cluster = self.cluster(&wanted).await?;
        let sorted = orphans::sort_out(&disks, &cluster, rule);
        Ok(Reading { unreadable: orphans::hidden(unreadable, &rule.marks), disks, sorted })
    }

    async fn cluster(&self, wanted: &std::collections::HashSet<String>) -> Result<Cluster, ListError> {
        self.kubernetes.read(&self.driver, Some(wanted), self.timeout).await
    }

    /// What the orphans cost, as far as it can be learnt.
    async fn prices(&self, sorted: &Sorted) -> PriceList {
        let mut prices = PriceList::new();
        let deadline = Instant::now() + PRICES_WITHIN;
        for orphan in &sorted.orphans {
            let Some(class) = price_class(&orphan.disk).filter(|class| !prices.contains_key(class)) else {
                continue;
            };
            match self.cloud.price(&class, deadline).await {
                Ok(price) => _ = prices.insert(class, price),
                Err(error) => {
                    tracing::warn!(%error, "prices are not shown");
                    break;
                }
            }
        }
        prices
    }
}

/// The flag, the variable or the metadata service, which exists on hosts of the cloud only.
async fn region(args: &InventoryArgs) -> Result<String, InventoryError> {
    if let Some(region) = &args.region {
        return Ok(region.value.clone());
    }
    let transport = ReqwestTransport::for_endpoint(&args.metadata_endpoint)?;
    let metadata = Metadata::new(transport, args.metadata_endpoint.clone());
    match metadata.instance(Instant::now() + ASK_WITHIN).await {
        Ok(instance) => instance
            .region
            .ok_or_else(|| InventoryError::NoRegion("the metadata service does not know it".to_owned())),
        Err(error) => Err(InventoryError::NoRegion(error.to_string())),
    }
}

fn format(output: Output) -> Format {
    match output {
        Output::Text => Format::Text,
        Output::Wide => Format::Wide,
        Output::Json => Format::Json,
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
