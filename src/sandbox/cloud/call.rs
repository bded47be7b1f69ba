//! One API call from its arrival to its answer.

use serde_json::{Value, json};

use super::api::{self, Account, Data, Problem};
use super::faults::Effect;
use super::model::{Cause, Lags, Twist};
use super::request::{Answer, Params, Request, Response};
use super::signature::sign;
use super::{SimCloud, State};

const REQUEST_ID_HEADER: &str = "x-ucloud-request-uuid";

/// What is settled when a request arrives.
#[derive(Clone)]
struct Arrival {
    action: String,
    request_id: String,
    admitted: bool,
    fault: Option<Effect>,
    pause: std::time::Duration,
}

impl SimCloud {
    pub(super) async fn call(&self, request: &Request) -> Answer {
        let params = Params::read(request);
        let arrival = self.receive(&params);
        tokio::time::sleep(arrival.pause).await;
        let fault = arrival.fault.as_ref();
        let mut outcome = Ok(Data::new());
        if !arrival.admitted {
            outcome = Err(Problem::new(153, "request is throttled"));
        } else if fault.is_none_or(Effect::done) {
            outcome = self.execute(&params, &arrival);
            self.work().await;
        }
        match fault {
            Some(Effect::RetCode { code, message, .. }) => {
                outcome = Err(Problem::new(*code, message.clone()));
            }
            Some(Effect::Late { seconds, code }) => {
                outcome = Err(Problem::new(*code, "a backend did not answer in time"));
                self.execute_later(params.clone(), arrival.clone(), *seconds);
            }
            Some(_) | None => {}
        }
        if let Some(Effect::Hang { seconds, .. }) = fault {
            tokio::time::sleep(*seconds).await;
        }
        let answer = self.envelope(&arrival, outcome);
        let disguised = match fault {
            Some(fault) => fault.disguise(answer),
            None => Some(answer),
        };
        disguised.map_or(Answer::Reset, Answer::Response)
    }

    fn receive(&self, params: &Params) -> Arrival {
        let now = self.now();
        let mut state = self.state();
        let state = &mut *state;
        let action = params.get("Action").unwrap_or_default().to_owned();
        *state.counts.entry(action.clone()).or_default() += 1;
        let fault = state.faults.pick(&action, params);
        let admitted = state.throttle.admit(now, state.world.rules().limits.requests_per_second);
        let api = state.world.rules().latencies.api;
        let pause = api.draw(state.world.rng());
        let random = u128::from(state.world.rng().u64(..)) << 64 | u128::from(state.world.rng().u64(..));
        let hex = format!("{random:032x}");
        let request_id =
            format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
        Arrival { action, request_id, admitted, fault, pause }
    }

    fn execute(&self, params: &Params, arrival: &Arrival) -> Result<Data, Problem> {
        let spec = match arrival.action.as_str() {
            "" => return Err(Problem::new(160, "Missing Action")),
            name => api::find(name).ok_or_else(|| Problem::new(161, format!("Action [{name}] not exist")))?,
        };
        let mut state = self.state();
        let state = &mut *state;
        self.authenticate(state, params)?;
        if let Some(Effect::Before { event }) = &arrival.fault {
            // Whether the event made sense is the rule's author's business, not the caller's.
            let _ = state.world.happen(event.clone());
        }
        let twist = arrival.fault.as_ref().map_or(Twist::default(), Effect::twist);
        let cause = Cause { action: spec.name.to_owned(), request_id: arrival.request_id.clone() };
        state.world.begin(cause, twist);
        let lags = state.world.rules().lags;
        if let Some(Effect::Stale { seconds }) = arrival.fault {
            state.world.rules_mut().lags = Lags { stale_lists: seconds, stale_by_id: seconds, ..lags };
        }
        let account = Account {
            region: &self.inner.region,
            projects: &self.inner.projects,
            quirks: &state.quirks,
            epoch: self.inner.born,
        };
        let outcome = api::run(spec, params, &mut state.world, account);
        state.world.begin(Cause::console(), Twist::default());
        if let Some(Effect::Stale { .. }) = arrival.fault {
            state.world.rules_mut().lags = lags;
        }
        if let Some(Effect::After { event }) = &arrival.fault {
            let _ = state.world.happen(event.clone());
        }
        outcome
    }

    fn execute_later(&self, params: Params, arrival: Arrival, after: std::time::Duration) {
        let cloud = self.clone();
        self.inner.tasks.spawn(async move {
            let stop = cloud.inner.stop.clone();
            let due = stop.run_until_cancelled(tokio::time::sleep(after)).await;
            if due.is_some() && arrival.admitted {
                // Nobody is left to be told how it went.
                let _ = cloud.execute(&params, &arrival);
                cloud.work().await;
            }
        });
    }

    fn authenticate(&self, state: &State, params: &Params) -> Result<(), Problem> {
        let signature = params.get("Signature").ok_or_else(|| Problem::new(170, "Missing signature"))?;
        let public = params.get("PublicKey").unwrap_or_default();
        let private = match params.get("SecurityToken") {
            Some(token) => state
                .sessions
                .private_key(public, token, state.world.now())
                .ok_or_else(|| Problem::new(174, "STS token not exist"))?,
            None => self
                .inner
                .keys
                .iter()
                .find(|key| key.public == public)
                .map(|key| key.private.as_str())
                .ok_or_else(|| Problem::new(172, "User not exist"))?,
        };
        if signature != sign(&params.signed, private) {
            return Err(Problem::new(171, "Signature VerifyAC Error"));
        }
        Ok(())
    }

    fn envelope(&self, arrival: &Arrival, outcome: Result<Data, Problem>) -> Response {
        let quirks = self.state().quirks.clone();
        let (code, mut body) = match outcome {
            Ok(data) => (0, data),
            Err(problem) => {
                let message = json!(problem.message);
                let body = Data::from_iter((!quirks.no_messages).then(|| ("Message".to_owned(), message)));
                (problem.code, body)
            }
        };
        for value in body.values_mut() {
            if quirks.numbers_as_text {
                numbers_to_text(value);
            }
            if quirks.empty_fields_absent {
                drop_empty(value);
            }
        }
        let code = if quirks.ret_code_as_text { json!(code.to_string()) } else { json!(code) };
        body.insert("RetCode".to_owned(), code);
        body.insert("Action".to_owned(), json!(format!("{}Response", arrival.action)));
        let mut response = Response::json(200, &Value::Object(body));
        response.headers.push((REQUEST_ID_HEADER.to_owned(), arrival.request_id.clone()));
        response
    }
}

fn numbers_to_text(value: &mut Value) {
    match value {
        Value::Number(number) => *value = Value::String(number.to_string()),
        Value::Array(items) => items.iter_mut().for_each(numbers_to_text),
        Value::Object(members) => members.values_mut().for_each(numbers_to_text),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn drop_empty(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        Value::Object(members) => {
            members.retain(|_, member| *member != json!(""));
            members.values_mut().for_each(drop_empty);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
