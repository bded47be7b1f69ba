//! The log: one line of JSON or text per event, to standard error.

use std::fmt;
use std::panic::PanicHookInfo;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use super::level::LogLevel;

/// How the log is written.
#[derive(Debug, Clone)]
pub struct Log {
    pub format: Format,
    pub filter: Filter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Text,
}

/// Which events are written: a list of directives such as `warn,csi_udisk=debug`, known to be well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(String);

impl Filter {
    pub fn parse(directives: &str) -> Result<Self, ParseError> {
        EnvFilter::builder().parse(directives)?;
        Ok(Self(directives.to_owned()))
    }

    pub(super) fn to_env_filter(&self) -> EnvFilter {
        EnvFilter::builder().parse_lossy(&self.0)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Starts logging for the whole process and sends panics through it.
pub fn install(log: &Log) -> Result<LogLevel, TryInitError> {
    let (subscriber, level) = subscriber(log, std::io::stderr);
    subscriber.try_init()?;
    std::panic::set_hook(Box::new(report_panic));
    Ok(level)
}

fn subscriber<W>(log: &Log, writer: W) -> (Box<dyn Subscriber + Send + Sync>, LogLevel)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(log.filter.to_env_filter()).with_writer(writer);
    match log.format {
        Format::Text => {
            let builder = builder.with_ansi(false).with_filter_reloading();
            let level = LogLevel::new(log.filter.clone(), builder.reload_handle());
            (Box::new(builder.finish()), level)
        }
        // The current span carries the ids of the request; outer spans would only repeat them.
        Format::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(true).with_span_list(false);
            let builder = builder.with_filter_reloading();
            let level = LogLevel::new(log.filter.clone(), builder.reload_handle());
            (Box::new(builder.finish()), level)
        }
    }
}

/// A panic ends one task, not the process (see `csi::operation`), so its only trace is this line.
fn report_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("a panic without text");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panic: {message}");
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: Format, filter: &str, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = Log { format, filter: Filter::parse(filter).unwrap() };
        tracing::subscriber::with_default(subscriber(&log, move || writer.clone()).0, work);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_json_line_carries_the_request_it_belongs_to() {
        let line = written(Format::Json, "warn,csi_udisk=info", || {
            let _entered = tracing::error_span!("rpc", request = "ab12-7", method = "Probe").entered();
            tracing::info!(code = "Ok", "answered");
            tracing::debug!("not asked for");
        });
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["message"], "answered");
        assert_eq!(json["level"], "INFO");
        assert_eq!(json["code"], "Ok");
        assert_eq!(json["span"]["request"], "ab12-7");
        assert!(json["timestamp"].is_string());
    }

    #[test]
    fn errors_keep_their_request_at_the_lowest_verbosity() {
        let line = written(Format::Text, "warn,csi_udisk=warn", || {
            let _entered = tracing::error_span!("rpc", request = "ab12-7").entered();
            tracing::warn!("answered with an error");
        });
        assert!(line.contains("ab12-7") && !line.contains('\u{1b}'), "{line}");
    }

    #[test]
    fn the_level_follows_those_who_change_it() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = Log { format: Format::Json, filter: Filter::parse("warn,csi_udisk=info").unwrap() };
        let (subscriber, level) = subscriber(&log, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let say = |word: &str| tracing::debug!("said {word}");
            say("one");
            level.raise();
            say("two");
            level.restore();
            say("three");
            assert!(level.set("csi_udisk=loud").unwrap_err().to_string().contains("allowed: levels"));
            level.set("csi_udisk=debug").unwrap();
            say("four");
            for _ in 0..5 {
                level.raise();
            }
        });
        assert_eq!(level.current().to_string(), "debug,csi_udisk=trace");
        let bytes = lines.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        let said: Vec<&str> = ["one", "two", "three", "four"]
            .into_iter()
            .filter(|word| text.contains(&format!("said {word}")))
            .collect();
        assert_eq!(said, ["two", "four"], "{text}");
    }

    #[test]
    fn malformed_filters_are_refused() {
        assert!(Filter::parse("info,csi_udisk::ucloud=debug").is_ok());
        assert!(Filter::parse("a=b=c").is_err());
        assert!(Filter::parse("csi_udisk=loud").is_err());
    }
}
