//! Until when a caller can be answered.
//!
//! The server drops a call when the caller's `grpc-timeout` is over, and the caller then reads a bare "timeout
//! expired" instead of what the driver is waiting for. So the answer goes out a little earlier.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// The time of callers that name none, such as people with grpcurl; sidecars and kubelet always name one. Enough for
/// nearly every change to end.
const UNNAMED: Duration = Duration::from_secs(300);

/// Longer time-outs are cut down: no answer of this driver takes an hour, and dates far in the future overflow.
const LONGEST: Duration = Duration::from_secs(3600);

/// How much earlier the answer goes out, in shares of the caller's time…
const MARGIN_SHARE: u32 = 20;
/// …not less than what a busy node needs to deliver it…
const MARGIN_LEAST: Duration = Duration::from_millis(200);
/// …and not more than is ever of use.
const MARGIN_MOST: Duration = Duration::from_secs(2);
/// Of a very short time the margin takes only this share, or nothing would be left.
const MARGIN_SHARE_MOST: u32 = 4;

/// The moment by which a call that arrived just now must be answered so that the caller reads the answer.
pub fn answer_by<T>(request: &tonic::Request<T>) -> Instant {
    Instant::now() + patience(request.metadata())
}

fn patience(metadata: &MetadataMap) -> Duration {
    let named =
        metadata.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse_grpc_timeout);
    match named {
        Some(timeout) => {
            let timeout = timeout.min(LONGEST);
            let margin = (timeout / MARGIN_SHARE).clamp(MARGIN_LEAST, MARGIN_MOST);
            timeout - margin.min(timeout / MARGIN_SHARE_MOST)
        }
        None => UNNAMED,
    }
}

/// Parses gRPC's `Timeout`: at most eight digits and a unit. Anything else is no time-out, as for the server.
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_of_grpc_is_read() {
        for (text, duration) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("15S", Duration::from_secs(15)),
            ("500m", Duration::from_millis(500)),
            ("9999999u", Duration::from_micros(9_999_999)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("0S", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse_grpc_timeout(text), Some(duration), "{text}");
        }
        for odd in ["", "S", "10", "10s", "-1S", "+1S", "1.5S", "123456789S", "10 S", "1é", "١S"] {
            assert_eq!(parse_grpc_timeout(odd), None, "{odd}");
        }
    }

    fn patience_of(timeout: &str) -> Duration {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", timeout.parse().unwrap());
        patience(&metadata)
    }

    #[test]
    fn the_answer_goes_out_before_the_caller_leaves() {
        for (timeout, answer) in [
            ("10S", 9_500),
            ("15000m", 14_250),
            ("2M", 118_000),
            ("1S", 800),
            ("400m", 300),
            ("0S", 0),
            ("99999999H", 3_598_000),
        ] {
            assert_eq!(patience_of(timeout), Duration::from_millis(answer), "{timeout}");
        }
        assert_eq!(patience(&MetadataMap::new()), UNNAMED);
        assert_eq!(patience_of("soon"), UNNAMED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_answered_by_the_time_its_metadata_names() {
        let mut request = tonic::Request::new(());
        request.set_timeout(Duration::from_secs(10));
        assert_eq!(answer_by(&request), Instant::now() + Duration::from_millis(9_500));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_the_margin_is_never_negative(text in "\\PC{0,12}") {
            let _ = parse_grpc_timeout(&text);
        }

        #[test]
        fn longer_time_outs_never_leave_less(one in 0u32..99_999_999, other in 0u32..99_999_999) {
            let (less, more) = (one.min(other), one.max(other));
            let patience = |millis: u32| patience_of(&format!("{millis}m"));
            prop_assert!(patience(less) <= patience(more));
            prop_assert!(patience(more) <= Duration::from_millis(more.into()));
        }
    }
}
