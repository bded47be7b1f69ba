//! From a failed request to what it means: the one place where failures of all kinds become [`CloudError`]s.

use super::credentials::{CredentialError, Credentials};
use super::decode::DecodeError;
use super::envelope::Strange;
use super::ret_code;
use super::retry::{Facts, Retry};
use super::transport::{TransportError, TransportErrorKind};
use crate::cloud::{Cause, CloudError, Outcome};
use crate::limit::GaveUp;

/// One failed attempt.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) outcome: Outcome,
    pub(crate) retry: Retry,
    pub(crate) ret_code: Option<i64>,
    pub(crate) message: String,
    pub(crate) advice: Option<&'static str>,
}

const CHECK_ENDPOINT: &str = "what answers there is not the cloud's API; check --api-endpoint";
const CHECK_NETWORK: &str = "check --api-endpoint, the name service and the network; the default endpoint is reachable inside a VPC only";
const READ_AGAIN: &str =
    "whether it was done is not known; the driver reads the state and goes on from there";

impl Failure {
    /// The API said no.
    pub(crate) fn refused(facts: Facts, code: i64, message: String, gateway: bool) -> Self {
        let meaning = ret_code::meaning(code, &message);
        // A status of the gateway's own casts doubt on who refused, and when.
        let outcome =
            if gateway && meaning.retry != Retry::Throttled { Outcome::Unknown } else { meaning.outcome };
        Self {
            cause: meaning.cause,
            outcome: for_request(facts, outcome),
            retry: if gateway && meaning.retry == Retry::StaleKey { Retry::Never } else { meaning.retry },
            ret_code: Some(code),
            message,
            advice: Some(meaning.advice),
        }
    }

    /// Something answered that is not the API, or not all of it.
    pub(crate) fn strange(facts: Facts, strange: &Strange) -> Self {
        let (cause, outcome, retry, advice) = match strange {
            Strange::TooMany => (
                Cause::Throttled,
                Outcome::NothingHappened,
                Retry::Throttled,
                Some("a gateway limits the requests; the driver slows down"),
            ),
            Strange::Redirect { .. } => {
                (Cause::Unreachable, Outcome::Unknown, Retry::Never, Some(CHECK_ENDPOINT))
            }
            // 408 and 425 ask for another try; other statuses of this class say that the request is not for them.
            Strange::Status { status: 400..=407 | 409..=424 | 426..=499, .. } => {
                (Cause::NoAnswer, Outcome::Unknown, Retry::Never, Some(CHECK_ENDPOINT))
            }
            Strange::TooLarge => (Cause::NoAnswer, Outcome::Unknown, Retry::Never, Some(CHECK_ENDPOINT)),
            Strange::Status { .. } | Strange::NotJson { .. } | Strange::NoRetCode { .. } => {
                (Cause::NoAnswer, Outcome::Unknown, Retry::Transient, None)
            }
        };
        Self::new(facts, cause, outcome, retry, strange.to_string(), advice)
    }

    /// The API said yes, in words that we do not understand.
    pub(crate) fn undecodable(facts: Facts, error: &DecodeError) -> Self {
        // The action stands in the error already.
        let message = format!("RetCode 0, but {}", error.problem);
        Self::new(facts, Cause::NoAnswer, Outcome::Unknown, Retry::Never, message, None)
    }

    /// No answer came.
    pub(crate) fn transport(facts: Facts, error: TransportError) -> Self {
        let TransportError { kind, message, .. } = error;
        match kind {
            TransportErrorKind::NotSent => {
                let outcome = Outcome::NothingHappened;
                Self::new(facts, Cause::Unreachable, outcome, Retry::NotSent, message, Some(CHECK_NETWORK))
            }
            TransportErrorKind::MayBeSent => {
                Self::new(facts, Cause::NoAnswer, Outcome::Unknown, Retry::Transient, message, None)
            }
            TransportErrorKind::TooLarge => Self::strange(facts, &Strange::TooLarge),
        }
    }

    /// No answer came in time.
    pub(crate) fn timed_out(facts: Facts, waited: std::time::Duration) -> Self {
        let message = format!("no answer within {:.1} s", waited.as_secs_f64());
        Self::new(facts, Cause::NoAnswer, Outcome::Unknown, Retry::Transient, message, None)
    }

    /// The caller's time was over before anything was sent.
    pub(crate) fn too_late() -> Self {
        Self {
            cause: Cause::NoAnswer,
            outcome: Outcome::NothingHappened,
            retry: Retry::Never,
            ret_code: None,
            message: "the time for this call was over before it could be sent".to_owned(),
            advice: None,
        }
    }

    /// The process is being stopped.
    pub(crate) fn stopping() -> Self {
        Self {
            cause: Cause::Unreachable,
            outcome: Outcome::NothingHappened,
            retry: Retry::Never,
            ret_code: None,
            message: "not sent, because this process is being stopped".to_owned(),
            advice: Some("the next process of the driver goes on by itself"),
        }
    }

    /// The limiter gave no permit in time.
    pub(crate) fn no_turn(gave_up: GaveUp) -> Self {
        let message = match gave_up.refused_since {
            Some(since) => format!(
                "not sent: the cloud has been refusing requests of this account for {:.1} s, and {} others wait before",
                since.elapsed().as_secs_f64(),
                gave_up.ahead
            ),
            None => format!("not sent: {} requests wait before it for their turn", gave_up.ahead),
        };
        Self {
            cause: Cause::Throttled,
            outcome: Outcome::NothingHappened,
            retry: Retry::Never,
            ret_code: None,
            message,
            advice: Some("the driver goes on by itself; other users of the account may have to slow down"),
        }
    }

    /// There are no keys to sign with.
    pub(crate) fn no_credentials(error: &CredentialError) -> Self {
        Self {
            cause: Cause::Credentials,
            outcome: Outcome::NothingHappened,
            retry: Retry::Never,
            ret_code: None,
            message: error.to_string(),
            advice: Some(error.advice()),
        }
    }

    fn new(
        facts: Facts,
        cause: Cause,
        outcome: Outcome,
        retry: Retry,
        message: String,
        advice: Option<&'static str>,
    ) -> Self {
        let outcome = for_request(facts, outcome);
        let advice = advice.or((outcome == Outcome::Unknown).then_some(READ_AGAIN));
        Self { cause, outcome, retry, ret_code: None, message, advice }
    }

    /// Takes out what an answer may quote of the request's secrets.
    pub(crate) fn scrub(&mut self, credentials: &Credentials, signature: &str) {
        self.message = credentials.scrub(signature, &self.message);
    }

    pub(crate) fn into_error(
        self,
        action: &'static str,
        request_id: Option<String>,
        attempts: u32,
    ) -> CloudError {
        CloudError {
            action,
            cause: self.cause,
            outcome: self.outcome,
            ret_code: self.ret_code,
            message: self.message,
            advice: self.advice,
            request_id,
            attempts,
        }
    }
}

/// A read changes nothing, however it fails.
fn for_request(facts: Facts, outcome: Outcome) -> Outcome {
    if facts.idempotent { Outcome::NothingHappened } else { outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> Strange {
        Strange::Status { status, quote: String::new() }
    }

    #[test]
    fn only_what_certainly_was_not_done_says_so() {
        let unknown = [
            Failure::strange(Facts::CHANGE, &status(502)),
            Failure::strange(Facts::CHANGE, &status(404)),
            Failure::strange(Facts::CHANGE, &Strange::Redirect { status: 302 }),
            Failure::strange(
                Facts::CHANGE,
                &Strange::NotJson { problem: String::new(), quote: String::new() },
            ),
            Failure::strange(Facts::CHANGE, &Strange::NoRetCode { quote: String::new() }),
            Failure::strange(Facts::CHANGE, &Strange::TooLarge),
            Failure::timed_out(Facts::CHANGE, std::time::Duration::from_secs(65)),
            Failure::refused(Facts::CHANGE, 17005, String::new(), true),
            Failure::refused(Facts::CHANGE, 174, String::new(), true),
            Failure::refused(Facts::CHANGE, 17000, String::new(), false),
        ];
        for failure in unknown {
            assert_eq!(failure.outcome, Outcome::Unknown, "{failure:?}");
            assert!(matches!(failure.retry, Retry::Never | Retry::Transient), "{failure:?}");
        }
        let nothing = [
            Failure::strange(Facts::CHANGE, &Strange::TooMany),
            Failure::refused(Facts::CHANGE, 153, String::new(), false),
            Failure::refused(Facts::CHANGE, 17005, String::new(), false),
            Failure::too_late(),
            Failure::no_turn(GaveUp { refused_since: None, ahead: 3 }),
        ];
        for failure in nothing {
            assert_eq!(failure.outcome, Outcome::NothingHappened, "{failure:?}");
        }
    }

    #[test]
    fn a_read_never_changes_anything() {
        assert_eq!(Failure::strange(Facts::READ, &status(502)).outcome, Outcome::NothingHappened);
        assert_eq!(
            Failure::refused(Facts::READ, 17000, String::new(), false).outcome,
            Outcome::NothingHappened
        );
    }

    #[test]
    fn gateways_are_tried_again_and_wrong_endpoints_are_not() {
        for code in [500, 502, 503, 504, 408, 425] {
            assert_eq!(Failure::strange(Facts::READ, &status(code)).retry, Retry::Transient, "{code}");
        }
        for code in [400, 403, 404, 405] {
            assert_eq!(Failure::strange(Facts::READ, &status(code)).retry, Retry::Never, "{code}");
        }
    }
}
