//! Has the hosts do what the model asks of them, and tells the model when it is done.

use tokio::time::Instant;

use super::SimCloud;
use super::model::{Device, Work, WorkKind};
use crate::sandbox::hosts::{BackendError, HostBackend, Slot};

impl SimCloud {
    /// Does all that is to be done now, and sees to what is to be done later.
    ///
    /// Whatever is immediate is done when this returns, so that a read after a call finds it so.
    pub(super) async fn work(&self) {
        if let Err(error) = self.set_to_work().await {
            tracing::warn!(%error, "a simulated host failed");
        }
    }

    /// Like [`Self::work`], with the first failure, if any.
    pub(super) async fn set_to_work(&self) -> Result<(), BackendError> {
        let Some(backend) = &self.inner.backend else { return Ok(()) };
        let mut outcome = Ok(());
        loop {
            let now = self.now();
            let (ready, later): (Vec<_>, Vec<_>) =
                self.state().world.take_work().into_iter().partition(|work| work.at <= now);
            later.into_iter().for_each(|work| self.do_later(work));
            if ready.is_empty() {
                break;
            }
            for work in ready {
                outcome = outcome.and(self.do_now(backend.as_ref(), &work).await);
            }
        }
        self.wake_when_due();
        outcome
    }

    async fn do_now(&self, backend: &dyn HostBackend, work: &Work) -> Result<(), BackendError> {
        if !self.state().world.wants(work) {
            return Ok(());
        }
        let outcome = perform(backend, work).await;
        self.state().world.work_done(work.ticket, outcome.is_ok());
        outcome
    }

    fn do_later(&self, work: Work) {
        let cloud = self.clone();
        self.at(self.inner.started + work.at, async move {
            if let Some(backend) = &cloud.inner.backend
                && let Err(error) = cloud.do_now(backend.as_ref(), &work).await
            {
                tracing::warn!(%error, "a simulated host failed");
            }
            cloud.work().await;
        });
    }

    /// Changes end when somebody looks. Where ending one gives the hosts something to do, somebody must.
    fn wake_when_due(&self) {
        let mut state = self.state();
        let Some(due) = state.world.next_due() else { return };
        if state.wake.is_some_and(|wake| wake <= due) {
            return;
        }
        state.wake = Some(due);
        drop(state);
        let cloud = self.clone();
        self.at(self.inner.started + due, async move {
            cloud.state().wake = None;
            cloud.work().await;
        });
    }

    fn at(&self, time: Instant, job: impl Future<Output = ()> + Send + 'static) {
        let stop = self.inner.stop.clone();
        // Boxed, because a job may in turn call this.
        let job: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(job);
        self.inner.tasks.spawn(async move {
            let due = stop.run_until_cancelled(tokio::time::sleep_until(time)).await;
            if due.is_some() {
                job.await;
            }
        });
    }
}

fn slot(host: &str, device: Device) -> Slot {
    Slot { host: host.to_owned(), device: device.to_string(), serial: device.serial() }
}

async fn perform(backend: &dyn HostBackend, work: &Work) -> Result<(), BackendError> {
    let disk = work.subject.as_str();
    match &work.kind {
        WorkKind::Create { size } => backend.create(disk, *size).await,
        WorkKind::Delete => backend.delete(disk).await,
        WorkKind::Copy { from, size } => backend.copy(from, disk, *size).await,
        WorkKind::Plug { host, device, size } => backend.plug(&slot(host, *device), disk, *size).await,
        WorkKind::Unplug { host, device } => backend.unplug(&slot(host, *device), disk).await,
        WorkKind::Resize { size, seen_by } => {
            let seen_by = seen_by.as_ref().map(|(host, device)| slot(host, *device));
            backend.resize(disk, *size, seen_by.as_ref()).await
        }
        WorkKind::AddHost { host } => backend.add_host(host).await,
        WorkKind::RemoveHost { host } => backend.remove_host(host).await,
    }
}
