//! The API's error numbers: what each means for the disk, whether it may pass, and what a person can do about it.
//!
//! The second column is the important one. "Nothing" is a promise to the callers: the cloud certainly did not do
//! what was asked, so a creation is over and a later one makes no second disk. A number that only says *failed* is
//! no such promise, since the failure may have come half-way; nor is a number that nobody documented.

use super::retry::Retry;
use crate::cloud::{Cause, Outcome};

/// What an error number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) cause: Cause,
    /// For a request that changes something.
    pub(crate) outcome: Outcome,
    pub(crate) retry: Retry,
    /// The likely cause, a semicolon, and what to do, or what the driver does.
    pub(crate) advice: &'static str,
}

/// What the API says when no storage pool has room, under numbers that mean more than that.
const STOCK_OUT_MESSAGE: &str = "no available set exist";

const NO_STOCK: &str = "this zone has no stock of the disk type now; use another zone or type, or wait";

/// Looks up an error number. The message decides where the number is known to be ambiguous.
pub(crate) fn meaning(code: i64, message: &str) -> Meaning {
    // Gateway errors (below 1000) never come from a storage pool, whatever they quote.
    if code >= 1000 && message.to_ascii_lowercase().contains(STOCK_OUT_MESSAGE) {
        return Meaning {
            cause: Cause::NoStock,
            outcome: Outcome::NothingHappened,
            retry: Retry::Never,
            advice: NO_STOCK,
        };
    }
    TABLE.iter().find(|(known, _)| *known == code).map_or(UNKNOWN, |(_, meaning)| *meaning)
}

/// For reads, trying an unknown number again is what the vendor's own clients do.
const UNKNOWN: Meaning = Meaning {
    cause: Cause::Refused,
    outcome: Outcome::Unknown,
    retry: Retry::Transient,
    advice: "the API's documentation does not list this number; give it to the cloud's support with the request id",
};

/// It certainly was not done, and the same request would fail again until something changes.
const fn no(cause: Cause, advice: &'static str) -> Meaning {
    Meaning { cause, outcome: Outcome::NothingHappened, retry: Retry::Never, advice }
}

/// It failed somewhere; whether it was done is unknown, and nothing says that it would go better.
const fn failed(cause: Cause, advice: &'static str) -> Meaning {
    Meaning { cause, outcome: Outcome::Unknown, retry: Retry::Never, advice }
}

/// Something inside the cloud gave up; it may pass.
const fn hiccup(advice: &'static str) -> Meaning {
    Meaning { cause: Cause::NoAnswer, outcome: Outcome::Unknown, retry: Retry::Transient, advice }
}

/// Refused because something else runs. Whoever asked must wait for that, so it is not retried blindly.
const fn busy(advice: &'static str) -> Meaning {
    Meaning { cause: Cause::Busy, outcome: Outcome::NothingHappened, retry: Retry::Never, advice }
}

/// All documented numbers, and those that were met in the field. In order. Ten days in arrears is what the price list says
/// of deletion.
pub(crate) const TABLE: &[(i64, Meaning)] = &[
    (
        110,
        hiccup(
            "a backend did not answer the API within 60 s; the driver reads the state and goes on from there",
        ),
    ),
    (
        130,
        hiccup(
            "the API's own gate or authentication is in trouble, which should pass; the driver goes on by itself",
        ),
    ),
    (
        150,
        hiccup(
            "the service is not available at the moment; the driver goes on by itself, UCloud's status page tells more",
        ),
    ),
    (
        153,
        Meaning {
            cause: Cause::Throttled,
            outcome: Outcome::NothingHappened,
            retry: Retry::Throttled,
            advice: "the account sends more API requests than it may; the driver slows down, other users of the account may have to as well",
        },
    ),
    (
        160,
        no(
            Cause::InvalidRequest,
            "the endpoint took the request for one without an action; check --api-endpoint",
        ),
    ),
    (
        161,
        no(
            Cause::InvalidRequest,
            "the endpoint does not know this action; check --api-endpoint and --region",
        ),
    ),
    (
        170,
        no(
            Cause::Credentials,
            "the request reached the API without its signature, as through a proxy that changes it; check --api-endpoint and what lies between",
        ),
    ),
    (
        171,
        no(
            Cause::Credentials,
            "the signature is wrong, so the private key does not belong to the public key; check the API keys of the driver",
        ),
    ),
    (
        172,
        no(
            Cause::Credentials,
            "the user of the API keys does not exist, or the account was cancelled; give the driver keys of a living user",
        ),
    ),
    (
        173,
        no(
            Cause::Payment,
            "the account is frozen or restricted, often for unpaid bills, and disks of an account in arrears are deleted after ten days; its owner must clear this with UCloud soon",
        ),
    ),
    (
        174,
        Meaning {
            cause: Cause::Credentials,
            outcome: Outcome::NothingHappened,
            retry: Retry::StaleKey,
            advice: "the temporary key is not known to the cloud; the driver fetches a new one",
        },
    ),
    (210, no(Cause::InvalidRequest, "the API misses a parameter; check --region and the StorageClass")),
    (220, no(Cause::InvalidRequest, "the API misses a parameter; check --region and the StorageClass")),
    (
        230,
        no(
            Cause::InvalidRequest,
            "the API rejects a value; check region, zone and the StorageClass (some zones take no hourly billing, use chargeType month there)",
        ),
    ),
    (
        240,
        no(
            Cause::NoStock,
            "the account may not use this product, or the zone does not sell it; use another type or zone, or ask UCloud to open it",
        ),
    ),
    (
        291,
        no(
            Cause::Denied,
            "the sub-account of the driver's keys lacks a permission; grant it UDisk and UHost access in this project",
        ),
    ),
    (
        292,
        no(
            Cause::Denied,
            "the project does not exist, or the driver's keys do not see it; check --project-id",
        ),
    ),
    (293, no(Cause::Denied, "the account may not use this zone; ask UCloud to open it, or use another zone")),
    (
        294,
        no(
            Cause::Denied,
            "the account allows API calls from listed addresses only; add the driver's address to that list, inside a VPC 10.10.10.10",
        ),
    ),
    (295, no(Cause::Denied, "a security lock is on the account; its owner must lift it in the console")),
    (
        299,
        no(
            Cause::Denied,
            "an IAM policy denies this to the driver's keys or role; grant it UDisk and UHost access in this project",
        ),
    ),
    (
        520,
        no(
            Cause::Payment,
            "the account's balance does not pay for this; top it up, then it goes on by itself",
        ),
    ),
    (
        8010,
        no(
            Cause::HostMustStop,
            "this host cannot take the change while it runs; stop it, or wait until its pods have moved",
        ),
    ),
    (8024, hiccup("the host's service failed at its part, which should pass; the driver goes on by itself")),
    (
        8025,
        hiccup("the host's service could not do its part, which should pass; the driver goes on by itself"),
    ),
    (8035, busy("the host is being migrated by the cloud; the driver goes on by itself afterwards")),
    (
        8095,
        no(
            Cause::Quota,
            "a quota of the account for hosts and their disks is used up; ask UCloud for more or delete what is unused",
        ),
    ),
    (8096, no(Cause::InvalidRequest, "a data disk may have at most 8000 GB here; ask for less")),
    (8104, no(Cause::Payment, "the account has unpaid orders; pay them, then it goes on by itself")),
    (
        8107,
        no(
            Cause::InvalidRequest,
            "the size is not one that an attached disk can grow to; ask for more than it has, in steps of 10 GB",
        ),
    ),
    (
        8116,
        no(
            Cause::Denied,
            "the account may not buy by the hour; use a StorageClass with chargeType month or year",
        ),
    ),
    (
        8117,
        no(
            Cause::Payment,
            "what was paid in advance for this host or disk is over; renew it soon, since disks are deleted after ten days in arrears",
        ),
    ),
    (
        8300,
        no(
            Cause::Denied,
            "the user of the driver's keys may not touch this host or disk; grant it access to this resource",
        ),
    ),
    (
        8320,
        no(
            Cause::NoStock,
            "the zone has no stock of cloud disks for this host now; use another zone or type, or wait",
        ),
    ),
    (
        8832,
        hiccup("the host's service failed at this moment, which should pass; the driver goes on by itself"),
    ),
    (
        8840,
        failed(
            Cause::DetachFailed,
            "the host did not let the disk go, often because it is still mounted there or the host is just starting; unmount it if it is, the driver goes on by itself",
        ),
    ),
    (
        8892,
        failed(
            Cause::Refused,
            "the host's configuration could not be changed, and the cloud does not say why; if it stays so, ask UCloud's support with the request id",
        ),
    ),
    (
        8905,
        busy(
            "the host is starting, stopping or in another state that does not allow this; the driver waits, start the host if it is down",
        ),
    ),
    (
        8906,
        no(
            Cause::InvalidRequest,
            "what was said about the disk does not fit the host; see the disk and the host in the console",
        ),
    ),
    (8978, no(Cause::Quota, "the host's snapshot quota is used up; delete snapshots that are not needed")),
    (8980, busy("the host asks for a pause of 30 s between changes; the driver goes on by itself")),
    (
        8981,
        hiccup("the host's service could not read the disk, which should pass; the driver goes on by itself"),
    ),
    (
        8982,
        busy(
            "the disk is in a state that does not allow this now; the driver waits for the end of what runs",
        ),
    ),
    (
        16001,
        no(
            Cause::NotFound,
            "the cloud does not know this bare-metal host, perhaps it was deleted; if so, delete its Node too",
        ),
    ),
    (
        17000,
        failed(
            Cause::Refused,
            "the creation failed without a reason; the driver looks for the disk before it tries again, and UCloud's support knows more by the request id",
        ),
    ),
    (
        17005,
        no(Cause::NoStock, "this zone has no stock of the disk type now; use another zone or type, or wait"),
    ),
    (
        17010,
        failed(
            Cause::Refused,
            "making the snapshot failed without a reason; if it stays so, ask UCloud's support with the request id",
        ),
    ),
    (17011, no(Cause::Quota, "the disk has as many manual snapshots as it may; delete one")),
    (17012, no(Cause::Quota, "the account has as many snapshots as it may; delete some")),
    (
        17015,
        failed(
            Cause::Refused,
            "making a clone of the disk failed without a reason; if it stays so, ask UCloud's support with the request id",
        ),
    ),
    (
        17020,
        failed(
            Cause::Refused,
            "making a disk from the snapshot failed without a reason; see whether the snapshot is whole in the console",
        ),
    ),
    (
        17025,
        failed(Cause::Refused, "growing failed without a reason; the driver reads the size and tries again"),
    ),
    (
        17026,
        no(
            Cause::InUse,
            "the disk is attached or being attached; it must be detached first, so stop the pod that uses it",
        ),
    ),
    (
        17030,
        failed(
            Cause::Refused,
            "deleting failed without a reason, often because the disk is attached or being snapshotted; end that, the driver tries again",
        ),
    ),
    (
        17031,
        failed(
            Cause::Refused,
            "deleting the snapshot failed without a reason, often because a disk is being made from it; try again later",
        ),
    ),
    (
        17035,
        failed(
            Cause::Refused,
            "deleting the snapshot failed without a reason, often because a disk is being made from it; try again later",
        ),
    ),
    (17040, hiccup("the cloud failed to read the disk, which should pass; the driver reads it again")),
    (
        17041,
        no(
            Cause::NotFound,
            "the cloud does not know this disk in this region, zone and project; if it was deleted, its data is gone with it, else check --region and --project-id",
        ),
    ),
    (17045, hiccup("the cloud failed to read the snapshot, which should pass; the driver reads it again")),
    (
        17050,
        hiccup(
            "the cloud failed to note the change, which should pass; the driver reads the state and goes on from there",
        ),
    ),
    (
        17055,
        failed(
            Cause::AttachFailed,
            "the cloud gives no reason, and often the host has as many disks as it can (26), is starting or stopping, or the disk is elsewhere; see the disk and the host in the console",
        ),
    ),
    (17056, busy("an earlier attachment of this disk or host still runs; the driver waits for its end")),
    (17057, no(Cause::AlreadyAttached, "the disk is attached already; the driver reads where")),
    (
        17060,
        failed(
            Cause::DetachFailed,
            "the cloud gives no reason, and often it is still mounted, not attached, or the host has just started; see that no process on the host uses it",
        ),
    ),
    (17061, busy("an earlier detachment of this disk or host still runs; the driver waits for its end")),
    (
        17062,
        no(
            Cause::Denied,
            "the account may not have disks by the hour; use a StorageClass with chargeType month or year",
        ),
    ),
    (
        17063,
        no(
            Cause::Payment,
            "the account's balance does not pay for this disk, and one by the month or year is paid in advance as a whole; top the balance up, then it goes on by itself",
        ),
    ),
    (
        17064,
        failed(
            Cause::Refused,
            "making the bill failed; the driver looks for the disk before it tries again, see that no order is left unpaid",
        ),
    ),
    (
        17065,
        failed(
            Cause::Refused,
            "making the bill for the new size failed; the driver reads the size first, see that no order is left unpaid",
        ),
    ),
    (17066, hiccup("the cloud failed to read the bill, which should pass; the driver goes on by itself")),
    (
        17067,
        no(
            Cause::Quota,
            "the account has as many disks as it may; ask UCloud for more or delete some, csi-udisk orphans lists what nothing uses",
        ),
    ),
    (
        17068,
        hiccup(
            "the cloud failed to check its room for the disk, which should pass; the driver goes on by itself",
        ),
    ),
    (
        17070,
        failed(
            Cause::Refused,
            "making the snapshot failed without a reason; if it stays so, ask UCloud's support with the request id",
        ),
    ),
    (
        17080,
        failed(
            Cause::Refused,
            "bringing the disk back from the recycle bin failed without a reason; ask UCloud's support with the request id",
        ),
    ),
    (
        17081,
        failed(
            Cause::Refused,
            "deleting failed without a reason, often because the disk is attached or being snapshotted; end that, the driver tries again",
        ),
    ),
    (
        17084,
        no(
            Cause::Payment,
            "unpaid bills forbid to bring the disk back; pay them soon, since it is lost after some days",
        ),
    ),
    (17085, busy("the disk is being snapshotted; the driver goes on by itself afterwards")),
    (17086, busy("the disk is being cloned; the driver goes on by itself afterwards")),
    (
        17087,
        failed(
            Cause::Refused,
            "a snapshot of the disk failed, and the cloud forbids changes after that; delete that snapshot, or ask UCloud's support with the request id",
        ),
    ),
    (
        17088,
        no(
            Cause::InvalidRequest,
            "disks of this type cannot be snapshotted; use another type for volumes that need snapshots",
        ),
    ),
    (
        17089,
        no(
            Cause::InvalidRequest,
            "disks of this type cannot be cloned; use another type for volumes that need clones",
        ),
    ),
    (17090, hiccup("the cloud failed to switch data ark, which should pass; the driver goes on by itself")),
    (
        17091,
        no(
            Cause::InvalidRequest,
            "data ark of this disk was switched off less than three days ago; wait until then",
        ),
    ),
    (17092, no(Cause::InvalidRequest, "the disk is too old for data ark; leave udataArkMode out")),
    (
        17095,
        hiccup(
            "bringing back an older state of the disk failed, which should pass; the driver goes on by itself",
        ),
    ),
    (
        17096,
        no(
            Cause::InUse,
            "the disk is attached, so no older state can be brought back; stop the pod that uses it first",
        ),
    ),
    (
        17097,
        no(
            Cause::InUse,
            "the disk is attached, so no older state can be brought back; stop the pod that uses it first",
        ),
    ),
    (17098, busy("an older state of the disk is being brought back; the driver waits for the end of that")),
    (17099, no(Cause::Quota, "the disk has as many snapshots as it may; delete some of its snapshots")),
    (17101, busy("an attachment was asked for less than 30 s ago; the driver waits that long")),
    (17102, hiccup("the cloud failed to find the price, which should pass; the driver goes on by itself")),
    (
        17103,
        no(
            Cause::Quota,
            "this kind of account may have at most 20 GB per disk; ask for less or use another account",
        ),
    ),
    (
        17218,
        no(
            Cause::RdmaMismatch,
            "disk and host are in different RDMA clusters; let the pod run on a host of the disk's cluster, or allow --cross-pod-attach",
        ),
    ),
    (
        54002,
        no(
            Cause::NotFound,
            "the cloud does not know what the request names, perhaps the host was deleted; if so, delete its Node too",
        ),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: i64) -> Meaning {
        meaning(code, "")
    }

    /// Every number that the documentation lists for disks and for all products, and those met in the field.
    const DOCUMENTED: &[i64] = &[
        110, 130, 150, 153, 160, 161, 170, 171, 172, 173, 174, 210, 220, 230, 240, 291, 292, 293, 294, 295,
        299, 520, 8010, 8024, 8025, 8035, 8095, 8096, 8104, 8107, 8116, 8117, 8300, 8320, 8832, 8840, 8892,
        8905, 8906, 8978, 8980, 8981, 8982, 16001, 17000, 17005, 17010, 17011, 17012, 17015, 17020, 17025,
        17026, 17030, 17031, 17035, 17040, 17041, 17045, 17050, 17055, 17056, 17057, 17060, 17061, 17062,
        17063, 17064, 17065, 17066, 17067, 17068, 17070, 17080, 17081, 17084, 17085, 17086, 17087, 17088,
        17089, 17090, 17091, 17092, 17095, 17096, 17097, 17098, 17099, 17101, 17102, 17103, 17218, 54002,
    ];

    #[test]
    fn the_table_holds_every_number_once_in_order() {
        let codes: Vec<i64> = TABLE.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, DOCUMENTED);
    }

    /// Numbers that the documentation explains with the same words.
    const ALIKE: [[i64; 2]; 5] = [[210, 220], [17010, 17070], [17030, 17081], [17031, 17035], [17096, 17097]];

    #[test]
    fn every_number_has_a_cause_and_something_to_do_of_its_own() {
        let long = |text: &str| text.split(' ').count() >= 2;
        for (code, meaning) in TABLE {
            let advice = meaning.advice;
            let (cause, remedy) = advice.split_once("; ").unwrap_or_else(|| panic!("{code}: {advice}"));
            assert!(cause.split(' ').count() >= 4 && long(remedy), "{code}: {advice}");
            assert!(!advice.contains("; ; ") && remedy.find("; ").is_none(), "{code}: {advice}");
            assert!(!advice.ends_with('.'), "{code}: it stands inside a sentence");
            assert!(advice.len() <= 200, "{code}: {} bytes of the kilobyte that an event has", advice.len());
            for (other, another) in TABLE.iter().filter(|(other, _)| other > code) {
                let alike = ALIKE.contains(&[*code, *other]);
                assert_eq!(advice == another.advice, alike, "{code} and {other}");
            }
        }
    }

    #[test]
    fn numbers_mean_what_the_use_cases_act_on() {
        let cases = [
            (153, Cause::Throttled),
            (171, Cause::Credentials),
            (174, Cause::Credentials),
            (299, Cause::Denied),
            (294, Cause::Denied),
            (520, Cause::Payment),
            (240, Cause::NoStock),
            (8010, Cause::HostMustStop),
            (8035, Cause::Busy),
            (8107, Cause::InvalidRequest),
            (8840, Cause::DetachFailed),
            (8980, Cause::Busy),
            (8320, Cause::NoStock),
            (17005, Cause::NoStock),
            (17026, Cause::InUse),
            (17041, Cause::NotFound),
            (17055, Cause::AttachFailed),
            (17056, Cause::Busy),
            (17057, Cause::AlreadyAttached),
            (17060, Cause::DetachFailed),
            (17061, Cause::Busy),
            (17063, Cause::Payment),
            (17067, Cause::Quota),
            (17101, Cause::Busy),
            (17218, Cause::RdmaMismatch),
            (110, Cause::NoAnswer),
            (4711, Cause::Refused),
        ];
        for (code, cause) in cases {
            assert_eq!(of(code).cause, cause, "{code}");
        }
    }

    #[test]
    fn a_number_that_only_says_failed_promises_nothing() {
        for code in
            [110, 130, 150, 17000, 17025, 17030, 17040, 17055, 17060, 17064, 17081, 8840, 8892, 4711, -1, 0]
        {
            assert_eq!(of(code).outcome, Outcome::Unknown, "{code}");
        }
        for (code, meaning) in TABLE {
            if matches!(meaning.cause, Cause::NoAnswer | Cause::Refused) {
                assert_eq!(meaning.outcome, Outcome::Unknown, "{code}");
            }
        }
    }

    #[test]
    fn what_may_pass_is_retried_and_what_does_not_is_not() {
        for code in [110, 130, 150, 17040, 17045, 17050, 17066, 17068, 8024, 8981] {
            assert_eq!(of(code).retry, Retry::Transient, "{code}");
        }
        assert_eq!(of(153).retry, Retry::Throttled);
        assert_eq!(of(174).retry, Retry::StaleKey);
        for (code, meaning) in TABLE {
            // Whatever may be sent again although it changes something must certainly not have been taken.
            if matches!(meaning.retry, Retry::Throttled | Retry::StaleKey) {
                assert_eq!(meaning.outcome, Outcome::NothingHappened, "{code}");
            }
            if meaning.cause == Cause::Busy {
                assert_eq!(
                    (meaning.retry, meaning.outcome),
                    (Retry::Never, Outcome::NothingHappened),
                    "{code}"
                );
            }
        }
    }

    #[test]
    fn a_stock_out_is_known_by_its_message_too() {
        let by_message = meaning(17000, "create udisk failed: No Available Set Exist in zone");
        assert_eq!((by_message.cause, by_message.outcome), (Cause::NoStock, Outcome::NothingHappened));
        assert_eq!(meaning(4711, "no available set exist").cause, Cause::NoStock);
        assert_eq!(meaning(110, "no available set exist").cause, Cause::NoAnswer);
    }
}
