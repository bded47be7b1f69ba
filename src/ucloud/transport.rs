//! How a request gets to the API and its answer back: the seam below the client.
//!
//! The trait is one method, so that a simulated cloud in the same process is a few lines. Everything that has a
//! meaning (time limits, retries, signatures, RetCodes) is above it.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::Url;

/// The largest answer that is read, in bytes. A page of a hundred disks or hosts has a few hundred KiB; what is
/// larger is not an answer of the API, and must not fill the memory of the controller.
pub const MAX_RESPONSE: usize = 1 << 20;

/// The cloud's id of a request, which its support asks for.
pub const REQUEST_ID_HEADER: &str = "x-ucloud-request-uuid";

/// Longest wait for a connection (name, TCP, TLS). Shorter than a whole attempt: a host that does not answer a
/// SYN in five seconds is down, and nothing was sent yet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle connections are closed early: a change sent on a connection that the gateway is closing at that moment
/// has no answer, and nobody knows whether it was received.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
}

/// One request. `body` holds keys and a signature and so does not print.
#[derive(Clone)]
pub struct HttpRequest {
    pub method: Method,
    /// Holds no secrets: parameters travel in the body, except `Action`.
    pub url: Url,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    /// Where the id of the answer goes as soon as its head is here, for who gives up while its body is still coming.
    pub answered_by: Arc<OnceLock<String>>,
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("url", &self.url.as_str())
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish_non_exhaustive()
    }
}

/// One answer, whatever its status. `body` may hold temporary keys and so does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpResponse {
    pub status: u16,
    /// Header [`REQUEST_ID_HEADER`].
    pub request_id: Option<String>,
    pub body: Vec<u8>,
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse")
            .field("status", &self.status)
            .field("request_id", &self.request_id)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}

/// How far a request got that has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportErrorKind {
    /// No connection was made, so no byte of it reached the cloud.
    NotSent,
    /// It may have been received and done.
    MayBeSent,
    /// An answer came and was larger than [`MAX_RESPONSE`]. It may have been done.
    TooLarge,
}

/// A request without an answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    pub kind: TransportErrorKind,
    /// The whole chain of causes, without URL and secrets.
    pub message: String,
    /// Header [`REQUEST_ID_HEADER`], when the answer broke off behind its head.
    pub request_id: Option<String>,
}

/// Sends requests. Redirects are never followed (a signature is not for another host), and nothing is sent twice.
/// A dropped future gives the request up; the caller bounds the time.
pub trait Transport: Send + Sync + 'static {
    fn send(&self, request: HttpRequest)
    -> impl Future<Output = Result<HttpResponse, TransportError>> + Send;
}

impl<T: Transport> Transport for Arc<T> {
    fn send(
        &self,
        request: HttpRequest,
    ) -> impl Future<Output = Result<HttpResponse, TransportError>> + Send {
        (**self).send(request)
    }
}

/// Why no client could be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(
        "https endpoint, but no TLS provider is installed: call \
         rustls::crypto::ring::default_provider().install_default() at the start of the process"
    )]
    NoTlsProvider,
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("cannot build the HTTP client (are CA certificates installed?)")]
    Client(#[source] reqwest::Error),
}

/// The production transport. Clones share its connections.
#[derive(Debug, Clone)]
pub struct ReqwestTransport(reqwest::Client);

impl ReqwestTransport {
    /// A transport for one endpoint. Only `https` loads the platform's certificates, with the provider that the
    /// process installed; plain `http` (inside a VPC, metadata) needs neither.
    pub fn for_endpoint(endpoint: &Url) -> Result<Self, BuildError> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            // Proxies come from the environment, which only the configuration reads.
            .no_proxy();
        let provider = rustls::crypto::CryptoProvider::get_default().is_some();
        let builder = if wants_tls(endpoint, provider)? {
            builder.tls_backend_rustls()
        } else {
            builder.tls_backend_preconfigured(trust_nobody().map_err(BuildError::Tls)?).https_only(false)
        };
        builder.build().map(Self).map_err(|error| BuildError::Client(error.without_url()))
    }
}

/// Whether the endpoint speaks TLS. Without a provider the HTTP client would panic, so that is an error here.
fn wants_tls(endpoint: &Url, provider: bool) -> Result<bool, BuildError> {
    match (endpoint.scheme(), provider) {
        ("https", true) => Ok(true),
        ("https", false) => Err(BuildError::NoTlsProvider),
        _ => Ok(false),
    }
}

/// The HTTP client wants a TLS configuration even where no TLS is spoken. This one has no roots, so that a
/// connection which turns to TLS after all fails closed.
fn trust_nobody() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

impl Transport for ReqwestTransport {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let mut builder = match request.method {
            Method::Get => self.0.get(request.url),
            Method::Post => self.0.post(request.url).body(request.body),
        };
        for (name, value) in request.headers {
            builder = builder.header(name, value);
        }
        let mut response = builder.send().await.map_err(describe)?;
        let request_id = response
            .headers()
            .get(REQUEST_ID_HEADER)
            .and_then(|value| value.to_str().ok())
            .filter(|id| is_request_id(id))
            .map(str::to_owned);
        if let Some(id) = &request_id {
            // One request has one answer; a transport that sends twice would keep the first id.
            let _ = request.answered_by.set(id.clone());
        }
        let status = response.status().as_u16();
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > MAX_RESPONSE => {
                    let message = format!("the answer (HTTP {status}) is larger than {MAX_RESPONSE} bytes");
                    return Err(TransportError { kind: TransportErrorKind::TooLarge, message, request_id });
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(HttpResponse { status, request_id, body }),
                Err(error) => return Err(TransportError { request_id, ..describe(error) }),
            }
        }
    }
}

/// The cloud's are UUIDs. What stands between could put anything there, and errors and logs show it.
fn is_request_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

fn describe(error: reqwest::Error) -> TransportError {
    let kind = if error.is_connect() || error.is_builder() {
        TransportErrorKind::NotSent
    } else {
        TransportErrorKind::MayBeSent
    };
    let error = error.without_url();
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let text = inner.to_string();
        // Some layers repeat the text of what they wrap.
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = inner.source();
    }
    TransportError { kind, message, request_id: None }
}

#[cfg(test)]
mod tests;
