//! The production transport against a raw server on loopback that misbehaves in one way each.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// Serves one connection: reads the whole request, then lets `reply` do what it wants.
async fn serve<F>(reply: impl FnOnce(TcpStream) -> F + Send + 'static) -> (Url, JoinHandle<String>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/?Action=X", listener.local_addr().unwrap())).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        reply(stream).await;
        request
    });
    (url, server)
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = String::new();
    let mut buffer = [0; 1024];
    loop {
        let n = stream.read(&mut buffer).await.unwrap();
        request.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        if let Some((head, body)) = request.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            if body.len() >= length {
                return request;
            }
        }
        assert_ne!(n, 0, "the client left in the middle of its request");
    }
}

async fn serve_text(text: String) -> (Url, JoinHandle<String>) {
    serve(move |mut stream| async move {
        // A client that has read enough closes early.
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
    })
    .await
}

fn post(url: &Url) -> HttpRequest {
    let headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
    HttpRequest {
        method: Method::Post,
        url: url.clone(),
        headers,
        body: "A=1&B=2".to_owned(),
        answered_by: Arc::default(),
    }
}

async fn send(url: &Url) -> Result<HttpResponse, TransportError> {
    let transport = ReqwestTransport::for_endpoint(url).unwrap();
    // Only a failing test waits that long.
    tokio::time::timeout(Duration::from_secs(10), transport.send(post(url))).await.expect("an end")
}

#[tokio::test]
async fn status_body_and_request_id_come_through() {
    let body = r#"{"RetCode":0}"#;
    let text = format!(
        "HTTP/1.1 200 OK\r\nX-UCLOUD-REQUEST-UUID: id-1\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (url, server) = serve_text(text).await;
    let response = send(&url).await.unwrap();
    assert_eq!(response, HttpResponse { status: 200, request_id: Some("id-1".into()), body: body.into() });
    let request = server.await.unwrap();
    assert!(request.starts_with("POST /?Action=X HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("application/x-www-form-urlencoded") && request.ends_with("A=1&B=2"),
        "{request}"
    );
}

#[tokio::test]
async fn error_statuses_and_html_are_answers_too() {
    for status in ["502 Bad Gateway", "404 Not Found", "429 Too Many Requests"] {
        let (url, _) = serve_text(format!("HTTP/1.1 {status}\r\nContent-Length: 6\r\n\r\n<html>")).await;
        let response = send(&url).await.unwrap();
        assert_eq!(response.status.to_string(), status[..3]);
        assert_eq!(response.body, b"<html>");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/", other.local_addr().unwrap());
    for status in [301, 302, 303, 307, 308] {
        let (url, _) = serve_text(format!(
            "HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
        assert_eq!(send(&url).await.unwrap().status, status);
    }
    let followed = tokio::time::timeout(Duration::from_millis(50), other.accept()).await;
    assert!(followed.is_err(), "the signed form went to another server");
}

#[tokio::test]
async fn a_refused_connection_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let error = send(&url).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::NotSent);
    assert!(error.message.to_ascii_lowercase().contains("refused"), "{error}");
    assert!(!error.message.contains("http://"), "no URL: {error}");
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_may_have_done_it() {
    let lost = serve(|stream| async move { drop(stream) }).await;
    let cut_head = serve_text("HTTP/1.1 200 OK\r\nContent-Le".to_owned()).await;
    let cut_body = serve_text("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"RetCode\"".to_owned()).await;
    let not_http = serve_text("SSH-2.0-OpenSSH_9.2\r\n".to_owned()).await;
    for (url, server) in [lost, cut_head, cut_body, not_http] {
        let error = send(&url).await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::MayBeSent, "{error}");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn the_id_of_an_answer_is_known_before_its_end() {
    let (url, _server) = serve(|mut stream| async move {
        let head = format!("HTTP/1.1 200 OK\r\n{REQUEST_ID_HEADER}: req-1\r\nContent-Length: 99\r\n\r\n{{");
        stream.write_all(head.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let request = post(&url);
    let answered_by = Arc::clone(&request.answered_by);
    let transport = ReqwestTransport::for_endpoint(&url).unwrap();
    let known = async {
        while answered_by.get().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        answer = transport.send(request) => panic!("it never ends: {answer:?}"),
        () = known => {}
    }
    assert_eq!(answered_by.get().map(String::as_str), Some("req-1"));

    let cut = format!("HTTP/1.1 200 OK\r\n{REQUEST_ID_HEADER}: req-2\r\nContent-Length: 99\r\n\r\n{{");
    let (url, _server) = serve_text(cut).await;
    assert_eq!(send(&url).await.unwrap_err().request_id.as_deref(), Some("req-2"));
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let (url, server) = serve(|mut stream| async move {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = vec![b' '; 64 << 10];
        // Ends when the client hangs up, or when it has taken far too much.
        for _ in 0..8 * MAX_RESPONSE / chunk.len() {
            if stream.write_all(&chunk).await.is_err() {
                return;
            }
        }
    })
    .await;
    let error = send(&url).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::TooLarge);
    server.await.unwrap();
}

#[tokio::test]
async fn a_dropped_request_hangs_up() {
    let (url, server) = serve(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{").await.unwrap();
        let mut end = [0; 1];
        assert_eq!(stream.read(&mut end).await.unwrap_or(0), 0);
    })
    .await;
    assert!(tokio::time::timeout(Duration::from_millis(100), send(&url)).await.is_err());
    server.await.unwrap();
}

#[test]
fn https_needs_a_provider_and_http_needs_none() {
    let plain = Url::parse("http://127.0.0.1/").unwrap();
    assert!(ReqwestTransport::for_endpoint(&plain).is_ok());
    assert!(matches!(wants_tls(&plain, false), Ok(false)));
    let tls = Url::parse("https://127.0.0.1/").unwrap();
    assert!(matches!(wants_tls(&tls, true), Ok(true)));
    assert!(matches!(wants_tls(&tls, false), Err(BuildError::NoTlsProvider)));
}
