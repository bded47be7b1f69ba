//! The HTTP skin: turns what axum speaks into [`Request`] and [`Answer`], and back.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::SimCloud;
use super::request::{Answer, Drip, Request, Response};

/// No documented request comes near; more is refused rather than kept in memory.
const LARGEST_REQUEST: usize = 1 << 20;

impl SimCloud {
    /// Serves the API at `/`, the metadata services below `/_metadata/<host>/` and the levers below `/_sandbox/`,
    /// until `stop`.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let cloud = self.clone();
        let service = Router::new()
            .fallback(async move |ConnectInfo(cut): ConnectInfo<Cut>, request: axum::extract::Request| {
                let Some(request) = read(request).await else {
                    return plain(StatusCode::PAYLOAD_TOO_LARGE, "request is too large");
                };
                match cloud.handle(request).await {
                    Answer::Response(response) => write(response),
                    Answer::Reset => {
                        cut.now();
                        plain(StatusCode::INTERNAL_SERVER_ERROR, "never arrives")
                    }
                }
            })
            .into_make_service_with_connect_info::<Cut>();
        let server = axum::serve(Cuttable(listener), service);
        // No graceful stop: it would wait for connections that hang on purpose.
        tokio::select! {
            outcome = server => outcome,
            () = stop.cancelled() => Ok(()),
        }
    }
}

async fn read(request: axum::extract::Request) -> Option<Request> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, LARGEST_REQUEST).await.ok()?;
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Some(Request {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: body.to_vec(),
    })
}

fn write(response: Response) -> axum::response::Response {
    let body = match response.drip {
        None => Body::from(response.body),
        Some(drip) => dripping(response.body, drip),
    };
    let mut answer = axum::response::Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &response.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

fn plain(status: StatusCode, text: &'static str) -> axum::response::Response {
    let mut answer = axum::response::Response::new(Body::from(text));
    *answer.status_mut() = status;
    answer
}

/// A body that comes in pieces, with a pause before each.
fn dripping(body: Vec<u8>, drip: Drip) -> Body {
    let (send, receive) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(1);
    tokio::spawn(async move {
        let size = body.len().div_ceil(drip.pieces).max(1);
        for piece in body.chunks(size) {
            tokio::time::sleep(drip.pause).await;
            if send.send(Ok(Bytes::copy_from_slice(piece))).await.is_err() {
                return;
            }
        }
    });
    Body::from_stream(Pieces(receive))
}

struct Pieces(tokio::sync::mpsc::Receiver<io::Result<Bytes>>);

impl tokio_stream::Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Cuts a connection: what is written to it afterwards never leaves, and the peer sees a reset.
#[derive(Debug, Clone, Default)]
struct Cut(Arc<AtomicBool>);

impl Cut {
    fn now(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A listener whose connections can be cut by the handler.
#[derive(Debug)]
struct Cuttable(TcpListener);

#[derive(Debug)]
struct CuttableStream {
    stream: TcpStream,
    cut: Cut,
}

impl Listener for Cuttable {
    type Io = CuttableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, peer) = Listener::accept(&mut self.0).await;
        // Small answers go out at once; a failure only costs time.
        let _ = stream.set_nodelay(true);
        (CuttableStream { stream, cut: Cut::default() }, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Cuttable>> for Cut {
    fn connect_info(stream: IncomingStream<'_, Cuttable>) -> Self {
        stream.io().cut.clone()
    }
}

impl CuttableStream {
    fn check(&self) -> io::Result<()> {
        if !self.cut.is_cut() {
            return Ok(());
        }
        // Closing with no linger time sends a reset instead of an orderly end.
        self.stream.set_zero_linger()?;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::sandbox::cloud::{Effect, Rule, SimConfig};

    async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: sandbox\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn answers_travel_and_connections_break() {
        let cloud = SimCloud::new(SimConfig::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn({
            let (cloud, stop) = (cloud.clone(), stop.clone());
            async move { cloud.serve(listener, stop).await }
        });
        let answer = get(address, "/?Action=DescribeUDisk").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"RetCode\":170"), "{answer}");
        assert!(answer.contains("x-ucloud-request-uuid: "), "{answer}");

        cloud.add_fault(Rule::once("DescribeUDisk", Effect::RequestLost));
        let broken = get(address, "/?Action=DescribeUDisk").await.unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::ConnectionReset);

        let slow = Effect::SlowBody { pieces: 3, pause: Duration::from_millis(20) };
        cloud.add_fault(Rule::once("DescribeUDisk", slow));
        let start = tokio::time::Instant::now();
        let answer = get(address, "/?Action=DescribeUDisk").await.unwrap();
        assert!(answer.contains("chunked") && start.elapsed() >= Duration::from_millis(60));

        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
