//! A service that can be reached before it can be made.
//!
//! The controller needs its region and zone, which the metadata service may not give at once; its socket is
//! served all the same. Until the service is there, its calls answer `Unavailable` with what is missing, which
//! sidecars and kubelet take for "ask again".

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::Service;

use crate::readiness::Readiness;

/// A place for the service `S`. Clones share it.
#[derive(Debug)]
pub struct Gate<S> {
    service: Arc<OnceLock<S>>,
    readiness: Readiness,
}

impl<S> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self { service: Arc::clone(&self.service), readiness: self.readiness.clone() }
    }
}

impl<S> Gate<S> {
    /// `readiness` says what is missing while the gate is closed.
    pub fn new(readiness: Readiness) -> Self {
        Self { service: Arc::default(), readiness }
    }

    /// From now on calls go to `service`. Only the first one counts.
    pub fn open(&self, service: S) {
        // A second service would be one more set of locks beside the first.
        let _ = self.service.set(service);
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Generated services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Some(service) = self.service.get() {
            return Box::pin(service.clone().call(request));
        }
        let missing = self.readiness.missing().join(", ");
        let status = Status::unavailable(format!("the driver is not ready yet; waiting for {missing}"));
        Box::pin(std::future::ready(Ok(status.into_http())))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::super::identity::IdentityService;
    use super::super::proto::v1::ProbeRequest;
    use super::super::proto::v1::identity_client::IdentityClient;
    use super::super::proto::v1::identity_server::IdentityServer;
    use super::*;

    #[tokio::test]
    async fn calls_are_put_off_until_the_service_is_there() {
        let readiness = Readiness::new();
        let latch = readiness.latch("zone");
        latch.blocked_by("metadata service: no route to host");
        let gate = Gate::new(readiness.clone());
        let mut client = IdentityClient::new(gate.clone());
        let status = client.probe(ProbeRequest {}).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(
            status.message().ends_with("waiting for zone (metadata service: no route to host)"),
            "{status}"
        );

        gate.open(IdentityServer::new(IdentityService::new("x", readiness)));
        assert_eq!(client.probe(ProbeRequest {}).await.unwrap().into_inner().ready, Some(false));
    }
}
