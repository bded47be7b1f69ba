//! The driver's HTTP port, for Prometheus and for people: metrics, health, readiness, the level of the log.
//!
//! It tells nothing of keys or users, and changes nothing but the log, which only callers on the same host may.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::level::LogLevel;
use super::metrics::Metrics;
use super::visitors::{Caller, Visitors};
use crate::readiness::Readiness;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Far longer than any filter.
const LARGEST_BODY: usize = 4096;

/// What the port shows.
#[derive(Debug, Clone)]
pub struct Admin {
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub log: LogLevel,
}

/// A port that nobody is served on yet.
#[derive(Debug)]
pub struct Port(TcpListener);

impl Port {
    /// # Errors
    /// When the address is not this host's, or taken.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(TcpListener::bind(address).await?))
    }

    /// # Errors
    /// When the port is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn serve(self, admin: Admin) {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/log", get(log).put(set_log).delete(restore_log))
            .layer(axum::extract::DefaultBodyLimit::max(LARGEST_BODY))
            .with_state(admin)
            .into_make_service_with_connect_info::<Caller>();
        // It does not end by itself: a failed accept is tried again.
        if let Err(error) = axum::serve(Visitors::new(self.0), router).await {
            tracing::error!(%error, "the HTTP port failed");
        }
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.expose() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    match admin.readiness.missing().as_slice() {
        [] => "ok\n".into_response(),
        missing => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", missing.join("\n"))).into_response(),
    }
}

async fn log(State(admin): State<Admin>) -> String {
    format!("{}\n", admin.log.current())
}

async fn set_log(
    State(admin): State<Admin>,
    ConnectInfo(Caller(caller)): ConnectInfo<Caller>,
    filter: String,
) -> Response {
    if !caller.ip().is_loopback() {
        return not_from_afar();
    }
    match admin.log.set(filter.trim()) {
        Ok(()) => log(State(admin)).await.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

async fn restore_log(
    State(admin): State<Admin>,
    ConnectInfo(Caller(caller)): ConnectInfo<Caller>,
) -> Response {
    if !caller.ip().is_loopback() {
        return not_from_afar();
    }
    admin.log.restore();
    log(State(admin)).await.into_response()
}

fn not_from_afar() -> Response {
    (StatusCode::FORBIDDEN, "the log is changed from inside the pod or by port-forward only\n")
        .into_response()
}
