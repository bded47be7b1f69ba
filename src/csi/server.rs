//! Serves the CSI services on the socket, and stops in order.

use std::time::Duration;

use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::Server;

use super::connection::Connection;
use super::operation::Operations;
use super::socket::Socket;
use super::trace::TraceLayer;
use crate::telemetry::metrics::Metrics;

/// What a stop may take in all. kubelet kills 30 s after it asked; the rest is for the process to end.
pub const STOP_WITHIN: Duration = Duration::from_secs(25);
/// How long connections have to close once every request is answered. A peer that never spoke, or died
/// without closing, does not hold up the stop: hyper itself would wait for it for ever.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// How long the answers take that say no more than that there will be none.
const TELL_WITHIN: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    #[error("the gRPC server ended by itself")]
    Ended,
}

/// Serves until `stop`, then lets what runs come to its end.
///
/// From the stop on nobody is accepted, no operation is started, and the socket is gone. Operations and
/// requests have until `stop_within` after it; what still runs then is abandoned, which is safe at any point, and
/// named in the log.
pub async fn serve(
    socket: Socket,
    routes: Routes,
    operations: Operations,
    metrics: Metrics,
    stop: CancellationToken,
    stop_within: Duration,
) -> Result<(), ServeError> {
    let trace = TraceLayer::new(metrics);
    let path = socket.path().display().to_string();
    let cut = CancellationToken::new();
    // However this function ends, no connection outlives it.
    let _cut_at_the_end = cut.clone().drop_guard();
    let cuttable = cut.clone();
    let connections = socket
        .accept(stop.clone())
        .map(move |accepted| accepted.map(|stream| Connection::new(stream, cuttable.clone())));
    let server = Server::builder()
        .layer(trace.clone())
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());
    let mut serving = AbortOnDropHandle::new(tokio::spawn(server));
    tracing::info!(socket = path, "serving");

    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        ended = &mut serving => {
            stop.cancel();
            return match ended {
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(())) | Err(_) => Err(ServeError::Ended),
            };
        }
    }

    let since = Instant::now();
    tracing::info!(running = operations.len(), "stopping: nothing new is started");
    let answer_within = stop_within.saturating_sub(CLOSE_WITHIN);
    let abandoned = operations.drain(answer_within).await;
    // Both time-outs are plans, not faults: what was cut is named below. Who was told that nothing comes any more is
    // answered at once.
    let told_by = if abandoned.is_empty() { since + answer_within } else { Instant::now() + TELL_WITHIN };
    let idle = tokio::time::timeout_at(told_by, trace.idle()).await.is_ok();
    let closed = tokio::time::timeout(CLOSE_WITHIN, &mut serving).await.is_ok();
    cut.cancel();
    for operation in &abandoned {
        tracing::warn!("abandoned by the stop, to be taken up by its next call: {operation}");
    }
    let seconds = since.elapsed().as_secs_f64();
    tracing::info!(seconds, all_answered = idle, all_closed = closed, "stopped serving");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use tokio::task::JoinHandle;
    use tonic::transport::{Channel, Endpoint};
    use tonic::{Code, Request, Response, Status, async_trait};

    use super::super::identity::IdentityService;
    use super::super::operation::Operation;
    use super::super::proto::v1::identity_client::IdentityClient;
    use super::super::proto::v1::identity_server::{Identity, IdentityServer};
    use super::super::proto::v1::{GetPluginInfoRequest, GetPluginInfoResponse, ProbeRequest, ProbeResponse};
    use super::*;
    use crate::readiness::Readiness;

    struct Running {
        _dir: tempfile::TempDir,
        path: PathBuf,
        stop: CancellationToken,
        operations: Operations,
        server: JoinHandle<Result<(), ServeError>>,
    }

    async fn start(service: impl Identity, operations: Operations, stop_within: Duration) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("csi.sock");
        let socket = Socket::bind(&path).await.unwrap();
        let stop = CancellationToken::new();
        let routes = Routes::new(IdentityServer::new(service));
        let server = tokio::spawn(serve(
            socket,
            routes,
            operations.clone(),
            Metrics::new("test"),
            stop.clone(),
            stop_within,
        ));
        Running { _dir: dir, path, stop, operations, server }
    }

    async fn start_identity() -> Running {
        let identity = IdentityService::new("x", Readiness::new());
        start(identity, Operations::new(), STOP_WITHIN).await
    }

    impl Running {
        async fn client(&self) -> IdentityClient<Channel> {
            let address = format!("unix://{}", self.path.display());
            IdentityClient::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap())
        }
    }

    /// Work that is done through an operation, and ends when the test says so.
    struct Slow {
        operations: Operations,
        started: CancellationToken,
        finish: CancellationToken,
    }

    #[async_trait]
    impl Identity for Slow {
        async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
            let operation = Operation { key: "k".into(), fingerprint: "f".into(), what: "slow work".into() };
            let (started, finish) = (self.started.clone(), self.finish.clone());
            let forever = Instant::now() + Duration::from_secs(3600);
            let done = self.operations.run(operation, forever, |_| async move {
                started.cancel();
                finish.cancelled().await;
                true
            });
            Ok(Response::new(ProbeResponse { ready: Some(done.await?) }))
        }

        async fn get_plugin_info(
            &self,
            _: Request<GetPluginInfoRequest>,
        ) -> Result<Response<GetPluginInfoResponse>, Status> {
            Err(Status::not_found("nothing here"))
        }
    }

    async fn start_slow(stop_within: Duration) -> (Running, CancellationToken, CancellationToken) {
        let (started, finish) = (CancellationToken::new(), CancellationToken::new());
        let operations = Operations::new();
        let slow = Slow { operations: operations.clone(), started: started.clone(), finish: finish.clone() };
        (start(slow, operations, stop_within).await, started, finish)
    }

    #[tokio::test]
    async fn answers_and_errors_reach_the_client() {
        let (running, _, finish) = start_slow(STOP_WITHIN).await;
        finish.cancel();
        let mut client = running.client().await;
        assert_eq!(client.probe(ProbeRequest {}).await.unwrap().into_inner().ready, Some(true));
        let status = client.get_plugin_info(GetPluginInfoRequest {}).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "nothing here"));
    }

    #[tokio::test]
    async fn silent_peers_do_not_hold_up_the_stop() {
        let running = start_identity().await;
        let mut client = running.client().await;
        client.probe(ProbeRequest {}).await.unwrap();
        let mut silent = UnixStream::connect(&running.path).await.unwrap();
        // Speaks HTTP/2 once and never again, so it does not see the server's goodbye either.
        let mut mute = UnixStream::connect(&running.path).await.unwrap();
        mute.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        mute.read_exact(&mut [0; 9]).await.unwrap();

        let since = Instant::now();
        running.stop.cancel();
        running.server.await.unwrap().unwrap();
        assert!(since.elapsed() < CLOSE_WITHIN * 5, "{:?}", since.elapsed());
        assert!(!running.path.exists());
        // Cut off, not left dangling; what the server had said before may still be read.
        let mut rest = Vec::new();
        let end = silent.read_to_end(&mut rest);
        let _ = tokio::time::timeout(CLOSE_WITHIN, end).await.expect("the connection ends");
    }

    #[tokio::test]
    async fn a_running_operation_ends_and_its_caller_is_answered() {
        let (running, started, finish) = start_slow(STOP_WITHIN).await;
        let mut client = running.client().await;
        let call = tokio::spawn(async move { client.probe(ProbeRequest {}).await });
        started.cancelled().await;
        running.stop.cancel();
        let refused = Operation { key: "other".into(), fingerprint: "f".into(), what: "more".into() };
        // The refusal shows that the drain has begun.
        while running.operations.run(refused.clone(), Instant::now(), |_| async {}).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(!running.server.is_finished());
        finish.cancel();
        assert_eq!(call.await.unwrap().unwrap().into_inner().ready, Some(true));
        running.server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_is_abandoned() {
        let (running, started, _finish) = start_slow(Duration::from_millis(1200)).await;
        let mut client = running.client().await;
        let call = tokio::spawn(async move { client.probe(ProbeRequest {}).await });
        started.cancelled().await;
        running.stop.cancel();
        running.server.await.unwrap().unwrap();
        let told = call.await.unwrap().unwrap_err();
        assert_eq!(told.code(), Code::Unavailable, "so that it is asked again: {told:?}");
        assert!(told.message().contains("slow work does not end before it"), "{told:?}");
    }
}
