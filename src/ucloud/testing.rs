//! A transport that plays a script, for the tests of this module.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::params::tests::decode;
use super::transport::{HttpRequest, HttpResponse, Transport, TransportError, TransportErrorKind};

/// What becomes of one request.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Response(HttpResponse),
    /// No connection.
    NotSent,
    /// Received, and the connection broke.
    Lost,
    /// Received, and never answered.
    Hang,
    /// The head of an answer with this request id, and never its end.
    Endless(&'static str),
    /// The same after a while.
    Later(Duration, Box<Answer>),
}

impl Answer {
    pub(super) fn status(status: u16, body: &str) -> Self {
        let request_id = Some("req-1".to_owned());
        Self::Response(HttpResponse { status, request_id, body: body.as_bytes().to_vec() })
    }

    pub(super) fn json(body: &str) -> Self {
        Self::status(200, body)
    }

    pub(super) fn refused(code: i64) -> Self {
        Self::json(&format!(r#"{{"RetCode":{code},"Message":"said {code}"}}"#))
    }

    pub(super) fn after(self, delay: Duration) -> Self {
        Self::Later(delay, Box::new(self))
    }
}

/// Clones share the script.
#[derive(Debug, Clone)]
pub(super) struct Scripted(Arc<Mutex<Script>>);

#[derive(Debug)]
struct Script {
    answers: VecDeque<Answer>,
    requests: Vec<Sent>,
}

#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) url: reqwest::Url,
    pub(super) at: Instant,
    pub(super) params: Vec<(String, String)>,
}

impl Sent {
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Scripted {
    pub(super) fn new(answers: Vec<Answer>) -> Self {
        Self(Arc::new(Mutex::new(Script { answers: answers.into(), requests: Vec::new() })))
    }

    pub(super) fn requests(&self) -> Vec<Sent> {
        self.0.lock().unwrap().requests.clone()
    }
}

impl Transport for Scripted {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let mut answer = {
            let mut script = self.0.lock().unwrap();
            let params = decode(&request.body);
            script.requests.push(Sent { url: request.url, at: Instant::now(), params });
            script.answers.pop_front().expect("a request that the script does not know of")
        };
        loop {
            let (kind, message) = match answer {
                Answer::Response(response) => return Ok(response),
                Answer::Later(delay, then) => {
                    tokio::time::sleep(delay).await;
                    answer = *then;
                    continue;
                }
                Answer::Hang => std::future::pending().await,
                Answer::Endless(id) => {
                    request.answered_by.set(id.to_owned()).expect("one answer");
                    std::future::pending().await
                }
                Answer::NotSent => (TransportErrorKind::NotSent, "connection refused"),
                Answer::Lost => (TransportErrorKind::MayBeSent, "connection reset"),
            };
            return Err(TransportError { kind, message: message.to_owned(), request_id: None });
        }
    }
}
