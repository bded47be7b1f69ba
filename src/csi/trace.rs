//! One log line for each RPC, at the edge, and the span that ties everything done for it together.
//!
//! The span carries a request id, the method and, once the service has read the request, the volume; a
//! detached operation keeps it, so its API calls and commands are found by the id of the RPC that started
//! it. Requests themselves are never logged: they carry secrets and user data.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field};

use crate::telemetry::metrics::Metrics;
use crate::volume::Quoted;

/// Notes the volume that the current RPC is about.
pub fn record_volume(id: &str) {
    Span::current().record("volume_id", id);
}

/// Wraps the services of one server. Clones share the count of requests.
#[derive(Debug, Clone)]
pub struct TraceLayer {
    /// Tells the ids of one process from those of its predecessor.
    process: u16,
    count: Arc<AtomicU64>,
    in_flight: TaskTracker,
    metrics: Metrics,
}

impl TraceLayer {
    pub fn new(metrics: Metrics) -> Self {
        let in_flight = TaskTracker::new();
        // Closed from the start: "all ended" may be waited for at any time, and new requests still count.
        in_flight.close();
        Self { process: fastrand::u16(..), count: Arc::default(), in_flight, metrics }
    }

    /// Waits until no request is being answered.
    pub async fn idle(&self) {
        self.in_flight.wait().await;
    }

    fn span(&self, method: &str) -> Span {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let request = format!("{:04x}-{number}", self.process);
        // At the level of errors, so that an error has its context whatever the filter.
        tracing::error_span!("rpc", request, method, volume_id = field::Empty)
    }
}

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;

    fn layer(&self, inner: S) -> Trace<S> {
        Trace { inner, layer: self.clone() }
    }
}

#[derive(Debug, Clone)]
pub struct Trace<S> {
    inner: S,
    layer: TraceLayer,
}

impl<S, B, R> Service<Request<B>> for Trace<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = Method::of_path(request.uri().path());
        let span = self.layer.span(&method.name);
        let mut watched = Watched {
            chatter: method.is_chatter(),
            method: method.counted_as(),
            metrics: self.layer.metrics.clone(),
            since: Instant::now(),
            span: span.clone(),
            answered: false,
            _in_flight: self.layer.in_flight.token(),
        };
        let answer = span.in_scope(|| self.inner.call(request));
        Box::pin(
            async move {
                // A panic would otherwise take down the connection, and with it every call of that sidecar.
                let answer = catch_panic(answer).await.unwrap_or_else(|| {
                    Ok(Status::aborted("the driver met a fault of its own; see its log, and call again")
                        .into_http())
                });
                let answer = answer.map(|response| readable(response, &method.name));
                if let Ok(response) = &answer {
                    // An error is in the headers; a success puts its code behind the body.
                    watched.answered(Status::from_header_map(response.headers()).as_ref());
                }
                answer
            }
            .instrument(span),
        )
    }
}

/// The output of a future, or `None` when it panicked. The future is not polled again then, so that nothing
/// sees what the panic left half done.
async fn catch_panic<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// The codes that the services and the router give.
const CODES: [Code; 13] = [
    Code::Ok,
    Code::Cancelled,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Unavailable,
];

/// What the generated code says of a method that no service has or that a service leaves out.
const NOT_THERE: [&str; 2] = ["", "Not yet implemented"];

/// Other codes come from the codec: it could not read the request, so nothing was done. The sidecars would take its
/// code for "nobody knows what was done", and ask for ever.
fn readable<R: Default>(response: Response<R>, method: &str) -> Response<R> {
    match Status::from_header_map(response.headers()) {
        Some(status) if !CODES.contains(&status.code()) => {
            Status::invalid_argument(status.message()).into_http()
        }
        Some(status) if status.code() == Code::Unimplemented && NOT_THERE.contains(&status.message()) => {
            Status::unimplemented(format!("this driver offers no call {}", Quoted(method))).into_http()
        }
        Some(_) | None => response,
    }
}

/// The calls that are answered.
const NAMES: [&str; 27] = [
    "Probe",
    "GetPluginInfo",
    "GetPluginCapabilities",
    "ControllerGetCapabilities",
    "CreateVolume",
    "DeleteVolume",
    "ControllerPublishVolume",
    "ControllerUnpublishVolume",
    "ControllerExpandVolume",
    "ControllerGetVolume",
    "ControllerModifyVolume",
    "ValidateVolumeCapabilities",
    "ListVolumes",
    "GetCapacity",
    "CreateSnapshot",
    "DeleteSnapshot",
    "ListSnapshots",
    "GetSnapshot",
    "NodeGetCapabilities",
    "NodeGetInfo",
    "NodeStageVolume",
    "NodeUnstageVolume",
    "NodePublishVolume",
    "NodeUnpublishVolume",
    "NodeExpandVolume",
    "NodeGetVolumeStats",
    "NodeGetVolumeHealth",
];

/// The name of a call without its package: `/csi.v1.Node/NodeStageVolume` is `NodeStageVolume`.
struct Method {
    name: String,
    known: bool,
}

impl Method {
    fn of_path(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        Self { known: path.starts_with("/csi.v1.") && NAMES.contains(&name.as_str()), name }
    }

    /// One label for all that CSI does not have, so that no caller can make up labels without end.
    fn counted_as(&self) -> String {
        if self.known { self.name.clone() } else { "other".to_owned() }
    }

    /// Calls that change nothing and come all the time.
    fn is_chatter(&self) -> bool {
        matches!(
            self.name.as_str(),
            "Probe"
                | "GetPluginInfo"
                | "GetPluginCapabilities"
                | "ControllerGetCapabilities"
                | "ControllerGetVolume"
                | "ListVolumes"
                | "ListSnapshots"
                | "GetCapacity"
                | "NodeGetCapabilities"
                | "NodeGetVolumeStats"
                | "GetInfo"
        )
    }
}

/// A request that is being answered. Dropped without an answer, it was given up by the caller.
struct Watched {
    chatter: bool,
    method: String,
    metrics: Metrics,
    since: Instant,
    span: Span,
    answered: bool,
    _in_flight: TaskTrackerToken,
}

impl Watched {
    fn answered(&mut self, status: Option<&Status>) {
        self.answered = true;
        let ms = self.milliseconds();
        let code = status.map_or(Code::Ok, Status::code);
        self.metrics.rpc(&self.method, &format!("{code:?}"), self.since.elapsed());
        match status.filter(|status| status.code() != Code::Ok) {
            Some(status) => {
                let code = field::debug(status.code());
                tracing::warn!(code, ms, "answered with an error: {}", status.message());
            }
            None if self.chatter => tracing::debug!(code = "Ok", ms, "answered"),
            None => tracing::info!(code = "Ok", ms, "answered"),
        }
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.answered {
            let _entered = self.span.enter();
            tracing::info!(ms = self.milliseconds(), "given up by the caller; what it started goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_lose_their_package_and_reads_are_chatter() {
        let method = Method::of_path("/csi.v1.Node/NodeStageVolume");
        assert_eq!(method.name, "NodeStageVolume");
        assert!(!method.is_chatter());
        for path in ["/csi.v1.Identity/Probe", "/csi.v1.Node/NodeGetVolumeStats"] {
            assert!(Method::of_path(path).is_chatter());
        }
        assert_eq!(Method::of_path("").name, "");
        assert_eq!(method.counted_as(), "NodeStageVolume");
        for made_up in ["/csi.v1.Node/Anything", "/x/Probe", ""] {
            assert_eq!(Method::of_path(made_up).counted_as(), "other");
        }
    }

    fn fail() -> String {
        panic!("the panic of this test")
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_like_any_other() {
        let mut service = TraceLayer::new(Metrics::new("test"))
            .layer(tower::service_fn(async |_: Request<()>| Ok::<_, Status>(Response::new(fail()))));
        let response = service.call(Request::new(())).await.unwrap();
        assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), Code::Aborted);
    }

    #[tokio::test]
    async fn idle_waits_for_answers_and_for_callers_that_left() {
        let layer = TraceLayer::new(Metrics::new("test"));
        layer.idle().await;
        let mut service = layer.layer(tower::service_fn(|_: Request<()>| {
            std::future::pending::<Result<Response<()>, Status>>()
        }));
        let call = service.call(Request::new(()));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), layer.idle()).await.is_err());
        drop(call);
        layer.idle().await;
    }
}
