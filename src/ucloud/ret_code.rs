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

const PAY: &str = "the account has too little money or unpaid orders; top it up, then it goes on by itself";
const ARREARS: &str =
    "the account is in arrears; pay soon, since disks of an account in arrears are deleted after some days";
const KEYS: &str = "check the API keys of the driver: they are wrong, or the user they belong to is gone";
const ALLOW_LIST: &str =
    "the account allows API calls from listed addresses only; inside a VPC add 10.10.10.10 to that list";
const POLICY: &str =
    "the driver's keys or role lack a permission; grant it UDisk and UHost access in this project";
const HOURLY: &str = "the account may not buy by the hour; use a StorageClass with chargeType month or year";
const ATTACHED: &str = "the disk is attached or being attached; it must be detached first";
const ASK_SUPPORT: &str = "the cloud gives no reason; if it stays so, ask its support with the request id";
const AGAIN: &str = "trouble inside the cloud that should pass; the driver goes on by itself";
const WAIT: &str = "another operation on this disk or its host must end first; the driver goes on by itself";

/// All documented numbers, and those that were met in the field. In order.
pub(crate) const TABLE: &[(i64, Meaning)] = &[
    (
        110,
        hiccup(
            "a backend did not answer within the API's 60 s; the driver reads the state and goes on from there",
        ),
    ),
    (130, hiccup(AGAIN)),
    (150, hiccup(AGAIN)),
    (
        153,
        Meaning {
            cause: Cause::Throttled,
            outcome: Outcome::NothingHappened,
            retry: Retry::Throttled,
            advice: "the account sends more API requests than it may; the driver slows down, other users of the \
                     account may have to as well",
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
    (170, no(Cause::Credentials, KEYS)),
    (
        171,
        no(Cause::Credentials, "the signature is wrong: the private key does not belong to the public key"),
    ),
    (172, no(Cause::Credentials, KEYS)),
    (
        173,
        no(Cause::Payment, "the account is frozen or restricted; its owner must clear this with the cloud"),
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
            "the API rejects a value; check region, zone and the StorageClass (some zones take no hourly billing)",
        ),
    ),
    (
        240,
        no(
            Cause::NoStock,
            "the account has no permission for this product, or the zone does not sell it; use another type or zone",
        ),
    ),
    (291, no(Cause::Denied, POLICY)),
    (
        292,
        no(
            Cause::Denied,
            "the project does not exist or the driver's keys do not see it; check --project-id",
        ),
    ),
    (
        293,
        no(Cause::Denied, "the account may not use this zone; ask the cloud to open it, or use another zone"),
    ),
    (294, no(Cause::Denied, ALLOW_LIST)),
    (295, no(Cause::Denied, "a security lock is on the account; its owner must lift it in the console")),
    (299, no(Cause::Denied, POLICY)),
    (520, no(Cause::Payment, PAY)),
    (
        8010,
        no(
            Cause::HostMustStop,
            "the host must be stopped for this; stop it, or wait until its pods have moved",
        ),
    ),
    (8024, hiccup(AGAIN)),
    (8025, hiccup(AGAIN)),
    (8035, busy("the host is being migrated by the cloud; the driver goes on by itself afterwards")),
    (
        8095,
        no(
            Cause::Quota,
            "a quota of the account is used up; ask the cloud for more or delete what is unused",
        ),
    ),
    (8096, no(Cause::InvalidRequest, "a data disk may have at most 8000 GB here")),
    (8104, no(Cause::Payment, PAY)),
    (
        8107,
        no(
            Cause::InvalidRequest,
            "attached disks grow in steps of 10 GB and never shrink; ask for such a size",
        ),
    ),
    (8116, no(Cause::Denied, HOURLY)),
    (8117, no(Cause::Payment, ARREARS)),
    (8300, no(Cause::Denied, POLICY)),
    (8320, no(Cause::NoStock, NO_STOCK)),
    (8832, hiccup(AGAIN)),
    (
        8840,
        failed(
            Cause::DetachFailed,
            "the host did not let the disk go; is it still mounted there, or is the host just starting?",
        ),
    ),
    (8892, failed(Cause::Refused, ASK_SUPPORT)),
    (8905, busy("the host is starting, stopping or in another state that does not allow this")),
    (8906, no(Cause::InvalidRequest, "what was said about the disk does not fit the host")),
    (8978, no(Cause::Quota, "the snapshot quota is used up; delete snapshots that are not needed")),
    (8980, busy("the host asks for a pause of 30 s; the driver goes on by itself")),
    (8981, hiccup(AGAIN)),
    (8982, busy("the disk is in a state that does not allow this now")),
    (16001, no(Cause::NotFound, "the cloud does not know this bare-metal host; was it deleted?")),
    (
        17000,
        failed(
            Cause::Refused,
            "the creation failed without a reason; the driver looks for the disk before it tries again",
        ),
    ),
    (17005, no(Cause::NoStock, NO_STOCK)),
    (17010, failed(Cause::Refused, ASK_SUPPORT)),
    (17011, no(Cause::Quota, "the disk has as many manual snapshots as it may; delete one")),
    (17012, no(Cause::Quota, "the account has as many snapshots as it may; delete some")),
    (17015, failed(Cause::Refused, ASK_SUPPORT)),
    (17020, failed(Cause::Refused, ASK_SUPPORT)),
    (
        17025,
        failed(Cause::Refused, "growing failed without a reason; the driver reads the size and tries again"),
    ),
    (17026, no(Cause::InUse, ATTACHED)),
    (
        17030,
        failed(
            Cause::Refused,
            "deleting failed without a reason; a disk that is attached or being snapshotted cannot be deleted",
        ),
    ),
    (17031, failed(Cause::Refused, ASK_SUPPORT)),
    (17035, failed(Cause::Refused, ASK_SUPPORT)),
    (17040, hiccup(AGAIN)),
    (17041, no(Cause::NotFound, "the cloud does not know this disk in this region, zone and project")),
    (17045, hiccup(AGAIN)),
    (17050, hiccup(AGAIN)),
    (
        17055,
        failed(
            Cause::AttachFailed,
            "the cloud gives no reason; usual ones: the host has as many disks as it can (26), is starting or \
             stopping, or the disk is elsewhere",
        ),
    ),
    (17056, busy("an earlier attachment of this disk or host still runs; the driver waits for its end")),
    (17057, no(Cause::AlreadyAttached, "the disk is attached already; the driver reads where")),
    (
        17060,
        failed(
            Cause::DetachFailed,
            "the cloud gives no reason; usual ones: it is not attached, still mounted, or the host has just started",
        ),
    ),
    (17061, busy("an earlier detachment of this disk or host still runs; the driver waits for its end")),
    (17062, no(Cause::Denied, HOURLY)),
    (17063, no(Cause::Payment, PAY)),
    (
        17064,
        failed(Cause::Refused, "making the bill failed; the driver looks for the disk before it tries again"),
    ),
    (
        17065,
        failed(Cause::Refused, "making the bill for the new size failed; the driver reads the size first"),
    ),
    (17066, hiccup(AGAIN)),
    (
        17067,
        no(Cause::Quota, "the account has as many disks as it may; ask the cloud for more or delete some"),
    ),
    (17068, hiccup(AGAIN)),
    (17070, failed(Cause::Refused, ASK_SUPPORT)),
    (17080, failed(Cause::Refused, ASK_SUPPORT)),
    (
        17081,
        failed(
            Cause::Refused,
            "deleting failed without a reason; a disk that is attached or being snapshotted cannot be deleted",
        ),
    ),
    (17084, no(Cause::Payment, PAY)),
    (17085, busy("the disk is being snapshotted; the driver goes on by itself afterwards")),
    (17086, busy("the disk is being cloned; the driver goes on by itself afterwards")),
    (17087, failed(Cause::Refused, ASK_SUPPORT)),
    (17088, no(Cause::InvalidRequest, "disks of this type cannot be snapshotted")),
    (17089, no(Cause::InvalidRequest, "disks of this type cannot be cloned")),
    (17090, hiccup(AGAIN)),
    (17091, no(Cause::InvalidRequest, "data ark was switched off less than three days ago; wait")),
    (17092, no(Cause::InvalidRequest, "the disk is too old for data ark; leave udataArkMode out")),
    (17095, hiccup(AGAIN)),
    (17096, no(Cause::InUse, ATTACHED)),
    (17097, no(Cause::InUse, ATTACHED)),
    (17098, busy(WAIT)),
    (17099, no(Cause::Quota, "the disk has as many snapshots as it may; delete some")),
    (17101, busy("an attachment was asked for less than 30 s ago; the driver waits")),
    (17102, hiccup(AGAIN)),
    (17103, no(Cause::Quota, "this kind of account may have at most 20 GB per disk")),
    (
        17218,
        no(
            Cause::RdmaMismatch,
            "disk and host are in different RDMA clusters; the pod must run on a host of the disk's cluster, or \
             --cross-pod-attach must be allowed",
        ),
    ),
    (54002, no(Cause::NotFound, "the cloud does not know what the request names; was the host deleted?")),
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
    fn the_table_holds_every_number_once_in_order_with_advice() {
        let codes: Vec<i64> = TABLE.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, DOCUMENTED);
        for (code, meaning) in TABLE {
            assert!(meaning.advice.len() > 20, "{code}");
            assert!(!meaning.advice.ends_with('.'), "{code}: the advice stands inside a sentence");
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
