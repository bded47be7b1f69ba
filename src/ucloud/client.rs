//! Sends one action: keys, a turn from the limiter, signature, time limit, envelope, and again where that is safe.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::action::Action;
use super::credentials::{CredentialSource, Credentials};
use super::decode::Fields;
use super::envelope::{self, Reply, Scrub};
use super::error::Failure;
use super::observe::{Attempt, Observer};
use super::params::Params;
use super::retry::{Next, Retry, RetryBudget, Tries, decide, left};
use super::sign::signature;
use super::transport::{HttpRequest, Method, Transport};
use crate::cloud::{CloudError, Deadline};
use crate::limit::{Backoff, Limiter, Limits, Turn, Unit};

/// The API gives up on its own backends after 60 s and then says so. A change is waited for a little longer: to
/// leave before would turn an answer into a guess, and it cannot be sent again anyway.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(65);

/// A change that had to wait for its turn is not sent in the caller's last moments, when its answer could not be
/// read any more.
const TIME_FOR_ANSWER: Duration = Duration::from_secs(1);

/// Between sends of one request: with four sends, about two seconds in all.
const BACKOFF: Backoff = match Backoff::new(Duration::from_millis(300), Duration::from_secs(5)) {
    Ok(backoff) => backoff,
    Err(_) => unreachable!(),
};

/// The request rate of the account, per second. The cloud publishes no numbers; it starts at what one busy controller
/// may need and is cut down by the first refusal. Pauses follow the seconds-long windows of such quotas. Changes go
/// first, but each is followed by reads: a quarter is for them, so that the ends of the early changes are seen while
/// later ones still queue.
const RATE: Limits = {
    let pause = match Backoff::new(Duration::from_millis(400), Duration::from_secs(10)) {
        Ok(backoff) => backoff,
        Err(_) => unreachable!(),
    };
    match Limits::new(50, 200, Unit::Per(Duration::from_secs(1)), pause) {
        Ok(limits) => limits.sharing(3),
        Err(_) => unreachable!(),
    }
};

/// What every request carries.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) endpoint: Url,
    pub(crate) region: String,
    pub(crate) project_id: Option<String>,
    pub(crate) user_agent: String,
    /// Time for one send of a read.
    pub(crate) read_timeout: Duration,
}

/// The client of the API, below the actions' meaning.
#[derive(Debug)]
pub(crate) struct Client<T> {
    common: Common,
    transport: T,
    credentials: CredentialSource<T>,
    limiter: Limiter,
    budget: RetryBudget,
    rng: Mutex<fastrand::Rng>,
    observer: Arc<dyn Observer>,
    stop: CancellationToken,
}

/// What one send brought.
struct Sent<R> {
    result: Result<R, Failure>,
    request_id: Option<String>,
    /// Whether the API's gateway answered at all, with anything but "too many".
    taken: bool,
}

impl<T: Transport> Client<T> {
    pub(crate) fn new(
        common: Common,
        transport: T,
        credentials: CredentialSource<T>,
        observer: Arc<dyn Observer>,
        mut rng: fastrand::Rng,
    ) -> Self {
        let limiter = Limiter::new(RATE, rng.fork());
        Self {
            common,
            transport,
            credentials,
            limiter,
            budget: RetryBudget::full(),
            rng: Mutex::new(rng),
            observer,
            stop: CancellationToken::new(),
        }
    }

    /// From `stop` on no change is sent any more: the next process may act by then, and knows nothing of this one's
    /// intentions.
    pub(crate) fn stopped_by(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    pub(crate) fn credentials(&self) -> &CredentialSource<T> {
        &self.credentials
    }

    pub(crate) fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// Does one action, with all the tries that are safe, and ends by `deadline`.
    pub(crate) async fn call<A: Action>(
        &self,
        action: &A,
        deadline: Deadline,
    ) -> Result<A::Answer, CloudError> {
        self.answered(action, deadline).await.map(|(answer, _)| answer)
    }

    /// The same, with the cloud's id of the request that was answered.
    pub(crate) async fn answered<A: Action>(
        &self,
        action: &A,
        deadline: Deadline,
    ) -> Result<(A::Answer, Option<String>), CloudError> {
        let facts = A::FACTS;
        let (turn, wait_until) = if facts.idempotent {
            (Turn::Later, deadline)
        } else {
            (Turn::First, deadline.checked_sub(TIME_FOR_ANSWER).unwrap_or(deadline))
        };
        let ticket = self.limiter.ticket(turn);
        let mut tries = Tries::default();
        let mut number = 0;
        // What the last send brought, for when there is no time for another.
        let mut last: Option<(Failure, Option<String>)> = None;
        let give_up = |failure: Failure, last: Option<(Failure, Option<String>)>, number| {
            let (failure, request_id) = last.unwrap_or((failure, None));
            failure.into_error(A::NAME, request_id, number)
        };
        loop {
            if Instant::now() >= deadline {
                return Err(give_up(Failure::too_late(), last, number));
            }
            let credentials = match self.credentials.current(deadline).await {
                Ok(credentials) => credentials,
                Err(error) => return Err(give_up(Failure::no_credentials(&error), None, number)),
            };
            let permit = match self.limiter.acquire(ticket, wait_until).await {
                Ok(permit) => permit,
                Err(gave_up) => return Err(give_up(Failure::no_turn(gave_up), last, number)),
            };
            if !facts.idempotent && self.stop.is_cancelled() {
                return Err(give_up(Failure::stopping(), None, number));
            }
            number += 1;
            let started = Instant::now();
            let sent = self.send(action, &credentials, deadline).await;
            let duration = started.elapsed();
            let throttled = matches!(&sent.result, Err(failure) if failure.retry == Retry::Throttled);
            if throttled {
                permit.refused();
            } else if sent.taken {
                permit.accepted();
            } else {
                drop(permit);
            }
            let next = match &sent.result {
                Ok(_) => {
                    self.budget.refill();
                    None
                }
                Err(failure)
                    if failure.retry == Retry::StaleKey && !self.credentials.reject(&credentials) =>
                {
                    Some(Next::GiveUp)
                }
                Err(failure) => {
                    let delay = {
                        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
                        BACKOFF.delay(tries.backoffs, &mut rng)
                    };
                    Some(decide(facts, failure.retry, tries, delay, left(deadline), &self.budget))
                }
            };
            self.report::<A>(number, &sent, duration, next);
            let failure = match sent.result {
                Ok(answer) => return Ok((answer, sent.request_id)),
                Err(failure) => failure,
            };
            match next {
                Some(Next::After(delay)) => {
                    tries.backoffs += 1;
                    tokio::time::sleep(delay).await;
                }
                Some(Next::WithFreshKey) => tries.fresh_key = true,
                Some(Next::WhenAllowed) => {}
                Some(Next::GiveUp) | None => {
                    return Err(failure.into_error(A::NAME, sent.request_id, number));
                }
            }
            last = Some((failure, sent.request_id));
        }
    }

    async fn send<A: Action>(
        &self,
        action: &A,
        credentials: &Credentials,
        deadline: Deadline,
    ) -> Sent<A::Answer> {
        let facts = A::FACTS;
        let (request, signature) = self.request(action, credentials);
        let answered_by = Arc::clone(&request.answered_by);
        let started = Instant::now();
        let timeout = if facts.idempotent {
            self.common.read_timeout
        } else {
            self.common.read_timeout.max(CHANGE_TIMEOUT)
        };
        let limit = deadline.min(started + timeout);
        let response = match tokio::time::timeout_at(limit, self.transport.send(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let request_id = error.request_id.clone();
                let result = Err(Failure::transport(facts, error));
                return Sent { result, request_id, taken: false };
            }
            Err(_) => {
                let result = Err(Failure::timed_out(facts, started.elapsed()));
                return Sent { result, request_id: answered_by.get().cloned(), taken: false };
            }
        };
        let scrub = |text: &str| credentials.scrub(&signature, text);
        let scrub: Option<Scrub<'_>> = if facts.sensitive { None } else { Some(&scrub) };
        let (mut result, taken) = match envelope::open(&response, scrub) {
            // A change that answers no more than "done" is believed only if it is this change that was done.
            Reply::Done(body) if !facts.idempotent && is_of_another(&body, A::NAME) => {
                let error = Fields::new(A::NAME, &body).error("it is the answer to another action");
                (Err(Failure::undecodable(facts, &error)), true)
            }
            Reply::Done(body) => {
                let fields = Fields::new(A::NAME, &body);
                (action.answer(&fields).map_err(|error| Failure::undecodable(facts, &error)), true)
            }
            Reply::Refused { code, message, gateway } => match action.refused(code) {
                Some(answer) if !gateway => (Ok(answer), true),
                _ => (Err(Failure::refused(facts, code, message, gateway)), true),
            },
            Reply::Strange(strange) => (Err(Failure::strange(facts, &strange)), false),
        };
        if let Err(failure) = &mut result {
            failure.scrub(credentials, &signature);
        }
        Sent { result, request_id: response.request_id, taken }
    }

    /// The signed request, and the signature to keep out of errors.
    fn request<A: Action>(&self, action: &A, credentials: &Credentials) -> (HttpRequest, String) {
        let mut params = Params::default();
        params.text("Action", A::NAME);
        params.text("Region", &self.common.region);
        params.optional("ProjectId", self.common.project_id.as_deref().or(credentials.project_id.as_deref()));
        action.params(&mut params);
        params.text("PublicKey", credentials.public_key.expose_secret());
        params.optional(
            "SecurityToken",
            credentials.security_token.as_ref().map(|token| token.expose_secret()),
        );
        let signature = signature(&params, credentials.private_key.expose_secret());
        params.text("Signature", &signature);
        let mut url = self.common.endpoint.clone();
        url.set_query(Some(&format!("Action={}", A::NAME)));
        let request = HttpRequest {
            method: Method::Post,
            url,
            headers: vec![
                ("content-type", "application/x-www-form-urlencoded".to_owned()),
                ("accept", "application/json".to_owned()),
                ("user-agent", self.common.user_agent.clone()),
            ],
            body: params.encode(),
            answered_by: Arc::default(),
        };
        (request, signature)
    }

    fn report<A: Action>(&self, number: u32, sent: &Sent<A::Answer>, duration: Duration, next: Option<Next>) {
        let failure = sent.result.as_ref().err();
        let attempt = Attempt {
            action: A::NAME,
            number,
            ret_code: failure.map_or(Some(0), |failure| failure.ret_code),
            error: failure.map(|failure| failure.message.as_str()),
            request_id: sent.request_id.as_deref(),
            duration,
            again: next.is_some_and(|next| next != Next::GiveUp),
        };
        tracing::debug!(
            action = attempt.action,
            attempt = attempt.number,
            ret_code = attempt.ret_code,
            error = attempt.error,
            request_id = attempt.request_id,
            duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            again = attempt.again,
            "api request"
        );
        self.observer.attempt(&attempt);
    }
}

/// Whether an answer names an action that is not the one that was asked for, as answers that were mixed up do.
fn is_of_another(body: &Map<String, Value>, action: &str) -> bool {
    let named = body.get("Action").and_then(Value::as_str).unwrap_or_default();
    !named.is_empty() && named.strip_suffix("Response").unwrap_or(named) != action
}

#[cfg(test)]
mod tests;
