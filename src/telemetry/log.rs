//! The log: one line of JSON or text per event, to standard error.

use std::fmt;
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{Log, LogFormat};

/// Which events are written: a list of directives such as `warn,csi_udisk=debug`, known to be well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(String);

impl Filter {
    pub fn parse(directives: &str) -> Result<Self, ParseError> {
        EnvFilter::builder().parse(directives)?;
        Ok(Self(directives.to_owned()))
    }

    fn to_env_filter(&self) -> EnvFilter {
        EnvFilter::builder().parse_lossy(&self.0)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Starts logging for the whole process and sends panics through it.
pub fn install(log: &Log) -> Result<(), tracing_subscriber::util::TryInitError> {
    subscribe(log, std::io::stderr)?;
    std::panic::set_hook(Box::new(report_panic));
    Ok(())
}

fn subscribe<W>(log: &Log, writer: W) -> Result<(), tracing_subscriber::util::TryInitError>
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    use tracing_subscriber::util::SubscriberInitExt as _;
    let builder = tracing_subscriber::fmt().with_env_filter(log.filter.to_env_filter()).with_writer(writer);
    match log.format {
        LogFormat::Text => builder.with_ansi(false).finish().try_init(),
        // The current span carries the ids of the request; outer spans would only repeat them.
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .finish()
            .try_init(),
    }
}

/// A panic ends one task, not the process (see `csi::operation`), so its only trace is this line.
fn report_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("a panic without text");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panic: {message}");
}
