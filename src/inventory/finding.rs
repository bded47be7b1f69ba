//! What can disagree between a cluster and the cloud.

/// The kinds of disagreement. The words are for scripts and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    DiskMissing,
    DiskUnreadable,
    DiskFailed,
    DiskInTwoVolumes,
    NameTwice,
    AttachedUnasked,
    AttachedNowhere,
    AttachedElsewhere,
    StuckAttaching,
    StuckDetaching,
    AttachError,
    DetachError,
    DiskSmaller,
    DiskLarger,
    OtherZone,
    OtherRdmaCluster,
    Released,
    ReclaimFailed,
    Terminating,
    ClaimLost,
    ClaimPending,
    AttachmentWithoutVolume,
    Overdue,
    Expired,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::DiskMissing => "disk-missing",
            Self::DiskUnreadable => "disk-unreadable",
            Self::DiskFailed => "disk-failed",
            Self::DiskInTwoVolumes => "disk-in-two-volumes",
            Self::NameTwice => "name-twice",
            Self::AttachedUnasked => "attached-unasked",
            Self::AttachedNowhere => "attached-nowhere",
            Self::AttachedElsewhere => "attached-elsewhere",
            Self::StuckAttaching => "stuck-attaching",
            Self::StuckDetaching => "stuck-detaching",
            Self::AttachError => "attach-error",
            Self::DetachError => "detach-error",
            Self::DiskSmaller => "disk-smaller",
            Self::DiskLarger => "disk-larger",
            Self::OtherZone => "other-zone",
            Self::OtherRdmaCluster => "other-rdma-cluster",
            Self::Released => "released",
            Self::ReclaimFailed => "reclaim-failed",
            Self::Terminating => "terminating",
            Self::ClaimLost => "claim-lost",
            Self::ClaimPending => "claim-pending",
            Self::AttachmentWithoutVolume => "attachment-without-volume",
            Self::Overdue => "overdue",
            Self::Expired => "expired",
        }
    }
}

/// One disagreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    /// What was found, and what to do about it.
    pub text: String,
}

/// How long ago, in the largest unit that still says something.
pub(super) fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_one_unit() {
        for (seconds, text) in
            [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (200_000, "2 d")]
        {
            assert_eq!(ago(seconds), text);
        }
    }
}
