//! The only place that deletes disks without a DeleteVolume: one at a time, each confirmed, and each looked at again from
//! both sides right before.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::{InventoryError, Sides};
use crate::cloud::{Cloud as _, Disk};
use crate::config::OrphansArgs;
use crate::inventory::orphans::{self, Orphan, Rule, Sorted};
use crate::inventory::report::Fate;
use crate::volume::DiskId;

/// The orphans that may be deleted: those of `ids`, which must all be, or all that bear the marks. An error names every
/// id that is none.
pub(super) fn targets<'a>(sorted: &'a Sorted, ids: &[DiskId]) -> Result<Vec<&'a Orphan>, String> {
    if ids.is_empty() {
        let deletable = |orphan: &&Orphan| orphans::deletable(orphan).is_ok();
        return Ok(sorted.orphans.iter().filter(deletable).collect());
    }
    let (mut chosen, mut wrong) = (Vec::<&Orphan>::new(), Vec::new());
    for id in ids {
        match sorted.orphans.iter().find(|orphan| orphan.disk.id == *id) {
            Some(orphan) => match orphans::deletable(orphan) {
                Ok(()) if chosen.iter().any(|known| known.disk.id == *id) => {}
                Ok(()) => chosen.push(orphan),
                Err(why) => wrong.push(format!("{id}: {why}")),
            },
            None => {
                let held = sorted.held_back.iter().find(|held| held.disk.id == *id);
                let why = held.map_or("it is none of the listed disks", |held| held.why.text());
                wrong.push(format!("{id}: {why}"));
            }
        }
    }
    if wrong.is_empty() { Ok(chosen) } else { Err(wrong.join("; ")) }
}

impl Sides {
    pub(super) async fn delete(
        &self,
        disks: &[Disk],
        sorted: &Sorted,
        args: &OrphansArgs,
        rule: impl Fn() -> Rule,
    ) -> Result<BTreeMap<String, Fate>, InventoryError> {
        if let Some(why) = orphans::refusal(sorted, &rule().marks) {
            return Err(InventoryError::Refused(why));
        }
        let targets = targets(sorted, &args.ids).map_err(InventoryError::Refused)?;
        let asked = io::stdin().is_terminal();
        if !asked && args.ids.is_empty() {
            let why = "there is no terminal to ask on; name the disks with --ids".to_owned();
            return Err(InventoryError::Refused(why));
        }
        let mut fates = BTreeMap::new();
        for orphan in targets {
            let listed = &orphan.disk;
            let fate = if asked && !confirm(listed)? {
                Fate::Kept
            } else {
                self.delete_one(disks, orphan, &rule()).await
            };
            fates.insert(listed.id.to_string(), fate);
        }
        Ok(fates)
    }

    async fn delete_one(&self, disks: &[Disk], orphan: &Orphan, rule: &Rule) -> Fate {
        let listed = &orphan.disk;
        // A person may have thought for long. Somebody may have given the disk to a volume meanwhile.
        let wanted = HashSet::from([listed.id.to_string()]);
        match self.cluster(&wanted).await {
            Ok(cluster) if orphans::sort_out(disks, &cluster, rule).orphans.contains(orphan) => {}
            Ok(_) => return Fate::Refused("something in the cluster refers to it now".to_owned()),
            Err(error) => return Fate::Refused(format!("the cluster could not be read again: {error}")),
        }
        match self.cloud.disk(&listed.id, self.deadline()).await {
            Ok(Some(now)) => {
                if let Err(why) = orphans::unchanged(listed, &now) {
                    return Fate::Refused(why);
                }
            }
            Ok(None) => return Fate::Refused("it is gone already".to_owned()),
            Err(error) => return Fate::Refused(format!("it could not be read again: {error}")),
        }
        tracing::info!(disk = %listed.id, name = listed.name, "deleting an orphan");
        match self.cloud.delete_disk(&listed.zone, &listed.id, self.deadline()).await {
            Ok(()) => Fate::Deleted,
            Err(error) if error.nothing_happened() => Fate::Refused(error.to_string()),
            Err(error) => match self.cloud.disk(&listed.id, self.deadline()).await {
                Ok(None) => Fate::Deleted,
                Ok(Some(_)) | Err(_) => Fate::Failed(error.to_string()),
            },
        }
    }
}

/// Has a person type the id. Anything else keeps the disk.
fn confirm(disk: &Disk) -> io::Result<bool> {
    let mut terminal = io::stderr().lock();
    let charge = disk.charge_type.as_deref().unwrap_or("unknown charge type");
    write!(
        terminal,
        "\n{} is {}, {}, named {:?}. Its data cannot be brought back.\nType its id to delete it, or Enter to keep it: ",
        disk.id, disk.size, charge, disk.name
    )?;
    terminal.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == disk.id.as_str())
}
