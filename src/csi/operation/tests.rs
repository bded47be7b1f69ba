use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;

fn operation(key: &str, fingerprint: &str) -> Operation {
    Operation { key: key.into(), fingerprint: fingerprint.into(), what: format!("{fingerprint} of {key}") }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Lets every task that can run come to its next wait.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn equal_requests_share_one_task_and_its_answer() {
    let operations = Operations::new();
    let runs = Arc::new(AtomicUsize::new(0));
    let calls: Vec<_> = (0..32)
        .map(|_| {
            let (operations, runs) = (operations.clone(), Arc::clone(&runs));
            tokio::spawn(async move {
                let work = |_| async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    runs.fetch_add(1, Ordering::SeqCst) + 7
                };
                operations.run(operation("bs-1", "attach"), soon(), work).await
            })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 7);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert!(operations.is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_request_for_the_key_is_told_what_runs_and_other_keys_are_free() {
    let operations = Operations::new();
    let first = operations.run(operation("bs-1", "attach"), soon(), |progress| async move {
        progress.set("waiting for the cloud");
        pending::<()>().await;
    });
    let mut first = Box::pin(first);
    tokio::select! {
        _ = &mut first => unreachable!("it is pending"),
        () = tokio::time::sleep(Duration::from_secs(2)) => {}
    }
    let busy = operations.run(operation("bs-1", "detach"), soon(), async |_| ()).await.unwrap_err();
    assert_eq!(
        busy.to_string(),
        "waiting for another operation: attach of bs-1, running for 2.0 s: waiting for the cloud"
    );
    assert!(matches!(busy, NoAnswer::Busy { .. }));
    operations.run(operation("bs-2", "detach"), soon(), async |_| ()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn when_the_callers_time_is_over_the_task_goes_on() {
    let operations = Operations::new();
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        "done"
    };
    let late = operations.run(operation("bs-1", "attach"), soon(), |_| slow()).await.unwrap_err();
    assert!(
        matches!(&late, NoAnswer::StillRunning { age, .. } if *age == Duration::from_secs(10)),
        "{late:?}"
    );
    // A retry joins: it is answered 20 s later, not 30.
    let since = Instant::now();
    let far = Instant::now() + Duration::from_secs(60);
    let answer = operations.run(operation("bs-1", "attach"), far, async |_| "done anew").await.unwrap();
    assert_eq!((answer, since.elapsed()), ("done", Duration::from_secs(20)));
}

#[tokio::test(start_paused = true)]
async fn an_operation_knows_whether_somebody_waits_for_it() {
    let operations = Operations::new();
    let second = Duration::from_secs(1);
    let work = |progress: Progress| async move {
        let mut left = Vec::new();
        for _ in 0..5 {
            left.push(progress.is_left());
            tokio::time::sleep(second).await;
        }
        left
    };
    let call = || operations.run(operation("bs-1", "create"), soon(), work);
    assert!(tokio::time::timeout(second / 2, call()).await.is_err());
    tokio::time::sleep(second).await;
    // Two join, and one of them leaves again.
    let (one, all) = tokio::join!(tokio::time::timeout(second, call()), call());
    assert!(one.is_err());
    assert_eq!(all.unwrap(), [false, true, false, false, false]);
}

#[tokio::test(start_paused = true)]
async fn when_the_caller_is_dropped_the_task_goes_on_and_keeps_its_key() {
    let operations = Operations::new();
    let finish = Arc::new(Notify::new());
    let waited_for = Arc::clone(&finish);
    let call = operations.run(operation("bs-1", "attach"), soon(), |_| async move {
        waited_for.notified().await;
        1
    });
    assert!(tokio::time::timeout(Duration::from_secs(1), call).await.is_err());
    assert_eq!(operations.len(), 1);
    let busy = operations.run(operation("bs-1", "detach"), soon(), async |_| ()).await;
    assert!(matches!(busy, Err(NoAnswer::Busy { .. })));
    finish.notify_one();
    assert_eq!(operations.run(operation("bs-1", "attach"), soon(), async |_| 2).await.unwrap(), 1);
}

fn fail() {
    panic!("the panic of this test")
}

#[tokio::test]
async fn a_panic_is_told_to_every_caller_and_frees_the_key() {
    let operations = Operations::new();
    let go = Arc::new(Notify::new());
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let (operations, go) = (operations.clone(), Arc::clone(&go));
            tokio::spawn(async move {
                let work = |_| async move {
                    go.notified().await;
                    fail();
                };
                operations.run(operation("bs-1", "attach"), soon(), work).await
            })
        })
        .collect();
    settle().await;
    go.notify_one();
    for call in calls {
        let answer = call.await.unwrap();
        assert!(
            matches!(&answer, Err(NoAnswer::Panicked { what }) if what == "attach of bs-1"),
            "{answer:?}"
        );
    }
    operations.run(operation("bs-1", "detach"), soon(), async |_| ()).await.unwrap();
}

/// The next call of a sidecar may come the moment it has the answer; it must not find the key taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_key_is_free_before_anybody_has_the_answer() {
    let operations = Operations::new();
    for round in 0..500 {
        let fingerprint = if round % 2 == 0 { "attach" } else { "detach" };
        let answer = operations.run(operation("bs-1", fingerprint), soon(), |_| async move { round }).await;
        assert_eq!(answer.unwrap(), round);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_runs_and_starts_nothing() {
    let operations = Operations::new();
    let runner = operations.clone();
    let call = tokio::spawn(async move {
        let work = async |_| tokio::time::sleep(Duration::from_secs(5)).await;
        runner.run(operation("bs-1", "attach"), soon(), work).await
    });
    settle().await;
    let drainer = operations.clone();
    let drain = tokio::spawn(async move { drainer.drain(Duration::from_secs(25)).await });
    settle().await;
    let refused = operations.run(operation("bs-2", "attach"), soon(), async |_| ()).await.unwrap_err();
    assert_eq!(refused.to_string(), "the driver is stopping; attach of bs-2 was not started");
    // Joining is still possible: it starts nothing.
    operations.run(operation("bs-1", "attach"), soon(), async |_| ()).await.unwrap();
    assert_eq!(drain.await.unwrap(), Vec::<String>::new());
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_names_what_it_leaves_behind() {
    let operations = Operations::new();
    let runner = operations.clone();
    let call = tokio::spawn(async move {
        let work = |progress: Progress| async move {
            progress.set("mkfs");
            pending::<()>().await;
        };
        let patient = Instant::now() + Duration::from_secs(60);
        runner.run::<(), _, _>(operation("bs-1", "stage"), patient, work).await
    });
    settle().await;
    let since = Instant::now();
    assert_eq!(operations.drain(Duration::from_secs(25)).await, ["stage of bs-1 (mkfs)"]);
    assert_eq!(since.elapsed(), Duration::from_secs(25));
    let told = call.await.unwrap().unwrap_err();
    assert!(matches!(&told, NoAnswer::Abandoned { age, .. } if *age == Duration::from_secs(25)), "{told}");
}
