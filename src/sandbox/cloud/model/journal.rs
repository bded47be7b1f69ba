//! What happened, in order: for tests that check what must never happen.

use std::time::Duration;

use serde::Serialize;

/// One accepted or finished change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Since the cloud was started.
    pub at: Duration,
    /// The action that asked for it, or `console` for what was done by hand.
    pub action: String,
    pub request_id: String,
    pub event: Happening,
    pub disk: String,
    pub host: Option<String>,
}

/// What a [`Record`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    CreateAccepted,
    Created,
    CreateFailed,
    AttachAccepted,
    Attached,
    AttachFailed,
    DetachAccepted,
    Detached,
    DetachFailed,
    ResizeAccepted,
    Resized,
    Deleted,
    Renamed,
    RestoreAccepted,
    Restored,
    RestoreFailed,
    /// `disk` is the snapshot's disk.
    SnapshotAccepted,
    SnapshotDeleted,
    /// Changed by hand or by the provider, not through an action.
    Moved,
}

/// On whose behalf the next changes happen.
#[derive(Debug, Clone, Default)]
pub struct Cause {
    pub action: String,
    pub request_id: String,
}

impl Cause {
    pub fn console() -> Self {
        Self { action: "console".to_owned(), request_id: String::new() }
    }
}
