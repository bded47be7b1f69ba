use std::sync::Mutex as StdMutex;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limiter(start: u32, max: u32, unit: Unit) -> Limiter {
    let pause = Backoff::new(Duration::from_millis(400), Duration::from_secs(4)).unwrap();
    Limiter::new(Limits::new(start, max, unit, pause).unwrap(), fastrand::Rng::with_seed(1))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

async fn permit(limiter: &Limiter, turn: Turn) -> Permit {
    limiter.acquire(limiter.ticket(turn), soon()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_idle_limiter_adds_no_delay() {
    let limiter = limiter(3, 3, Unit::Per(SECOND));
    let start = Instant::now();
    for _ in 0..3 {
        permit(&limiter, Turn::Later).await.accepted();
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    // Also when the caller has no time at all.
    tokio::time::advance(SECOND).await;
    let ticket = limiter.ticket(Turn::Later);
    assert!(limiter.acquire(ticket, Instant::now()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_width_per_second_is_a_rate_however_long_requests_take() {
    let limiter = limiter(10, 10, Unit::Per(SECOND));
    let start = Instant::now();
    let mut hanging = Vec::new();
    for n in 0..50 {
        let permit = permit(&limiter, Turn::Later).await;
        if n % 2 == 0 { permit.accepted() } else { hanging.push(permit) }
    }
    // Ten at once, then ten more each second.
    let waited = start.elapsed();
    assert!((Duration::from_millis(3900)..Duration::from_millis(4100)).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_width_at_a_time_is_concurrency() {
    let limiter = limiter(1, 1, Unit::AtATime);
    let one = permit(&limiter, Turn::Later).await;
    let ticket = limiter.ticket(Turn::Later);
    let refused = limiter.acquire(ticket, Instant::now() + SECOND).await.unwrap_err();
    assert_eq!(refused, GaveUp { refused_since: None, ahead: 0 });
    drop(one);
    assert!(limiter.acquire(ticket, Instant::now()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_refusals_halves_once_and_lets_one_prober_through() {
    let limiter = limiter(16, 16, Unit::Per(SECOND));
    let mut burst = Vec::new();
    for _ in 0..16 {
        burst.push(permit(&limiter, Turn::Later).await);
    }
    for permit in burst {
        permit.refused();
    }
    assert!((limiter.width() - 8.0).abs() < 1e-9, "{}", limiter.width());

    let start = Instant::now();
    let prober = permit(&limiter, Turn::Later).await;
    let pause = start.elapsed();
    assert!(pause >= Duration::from_millis(200) && pause <= Duration::from_millis(400), "{pause:?}");
    // While the prober is out, nobody else goes, not even with the first turn.
    let ticket = limiter.ticket(Turn::First);
    let parked = limiter.acquire(ticket, Instant::now() + SECOND).await.unwrap_err();
    assert!(parked.refused_since.is_some());
    prober.accepted();
    let start = Instant::now();
    for _ in 0..7 {
        permit(&limiter, Turn::Later).await.accepted();
    }
    assert!(start.elapsed() < Duration::from_millis(50), "the gate is open for all");
}

#[tokio::test(start_paused = true)]
async fn a_refused_prober_waits_twice_as_long_and_a_lost_one_is_replaced_at_once() {
    let limiter = limiter(8, 8, Unit::AtATime);
    permit(&limiter, Turn::Later).await.refused();
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let start = Instant::now();
        permit(&limiter, Turn::Later).await.refused();
        pauses.push(start.elapsed());
    }
    for (pause, full) in pauses.iter().zip([400, 800, 1600, 3200]) {
        let full = Duration::from_millis(full);
        assert!(*pause <= full && *pause >= full / 2, "{pauses:?}");
    }
    let lost = permit(&limiter, Turn::Later).await;
    let start = Instant::now();
    drop(lost);
    permit(&limiter, Turn::Later).await.accepted();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_prober_that_hangs_does_not_park_everybody() {
    let limiter = limiter(8, 8, Unit::Per(SECOND));
    permit(&limiter, Turn::Later).await.refused();
    let hanging = permit(&limiter, Turn::Later).await;
    let start = Instant::now();
    permit(&limiter, Turn::Later).await.accepted();
    assert_eq!(start.elapsed(), PROBER_PATIENCE);
    permit(&limiter, Turn::Later).await.accepted();
    assert!(start.elapsed() <= PROBER_PATIENCE + SECOND, "the gate is open");
    drop(hanging);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_it_wants_and_the_next_takes_the_place() {
    let limiter = limiter(1, 1, Unit::AtATime);
    permit(&limiter, Turn::Later).await.refused();
    let start = Instant::now();
    let hasty = {
        let limiter = limiter.clone();
        let ticket = limiter.ticket(Turn::First);
        tokio::spawn(async move { limiter.acquire(ticket, start + Duration::from_millis(50)).await.err() })
    };
    let patient = {
        let limiter = limiter.clone();
        let ticket = limiter.ticket(Turn::Later);
        tokio::spawn(async move { limiter.acquire(ticket, start + SECOND).await.map(Permit::accepted) })
    };
    let gave_up = hasty.await.unwrap().expect("gave up");
    assert_eq!(start.elapsed(), Duration::from_millis(50));
    assert_eq!(gave_up.ahead, 0);
    patient.await.unwrap().expect("became the prober");
    assert!(start.elapsed() <= Duration::from_millis(400));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_leaves_the_queue() {
    let limiter = limiter(1, 1, Unit::AtATime);
    let busy = permit(&limiter, Turn::Later).await;
    let ticket = limiter.ticket(Turn::First);
    {
        let waiter = limiter.acquire(ticket, soon());
        let short = tokio::time::timeout(SECOND, waiter).await;
        assert!(short.is_err());
    }
    assert_eq!(limiter.waiting(), 0);
    drop(busy);
    permit(&limiter, Turn::Later).await.accepted();
}

/// The order in which waiters of both turns get the one permit there is.
async fn order(limits: Limits, waiters: &[(&'static str, Turn)]) -> Vec<&'static str> {
    let limiter = Limiter::new(limits, fastrand::Rng::with_seed(1));
    let busy = permit(&limiter, Turn::Later).await;
    let order = Arc::new(StdMutex::new(Vec::new()));
    let tasks: Vec<_> = waiters
        .iter()
        .map(|&(name, turn)| {
            let (limiter, order, ticket) = (limiter.clone(), Arc::clone(&order), limiter.ticket(turn));
            tokio::spawn(async move {
                let permit = limiter.acquire(ticket, soon()).await.unwrap();
                order.lock().unwrap().push(name);
                permit.accepted();
            })
        })
        .collect();
    while limiter.waiting() < waiters.len() {
        tokio::task::yield_now().await;
    }
    drop(busy);
    for task in tasks {
        task.await.unwrap();
    }
    Arc::into_inner(order).unwrap().into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn first_turns_overtake_later_ones_and_arrivals_keep_their_order() {
    let pause = Backoff::new(SECOND, SECOND).unwrap();
    let waiters = [
        ("read 1", Turn::Later),
        ("read 2", Turn::Later),
        ("change 1", Turn::First),
        ("change 2", Turn::First),
        ("change 3", Turn::First),
        ("change 4", Turn::First),
        ("change 5", Turn::First),
    ];
    let strict = Limits::new(1, 1, Unit::AtATime, pause).unwrap();
    let all = ["change 1", "change 2", "change 3", "change 4", "change 5", "read 1", "read 2"];
    assert_eq!(order(strict, &waiters).await, all);
    // Where the later turn has a share, it is not passed over for ever.
    let shared = ["change 1", "change 2", "read 1", "change 3", "change 4", "read 2", "change 5"];
    assert_eq!(order(strict.sharing(2), &waiters).await, shared);
}

/// A cloud that takes `quota` requests in each second and refuses more.
struct Quota {
    quota: usize,
    taken: Vec<Instant>,
    refused: usize,
}

impl Quota {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        self.taken.retain(|moment| now < *moment + SECOND);
        let room = self.taken.len() < self.quota;
        if room {
            self.taken.push(now);
        } else {
            self.refused += 1;
        }
        room
    }
}

#[tokio::test(start_paused = true)]
async fn most_of_an_unknown_quota_is_used_with_few_refusals() {
    let limiter = limiter(50, 200, Unit::Per(SECOND));
    let cloud = Arc::new(StdMutex::new(Quota { quota: 20, taken: Vec::new(), refused: 0 }));
    let start = Instant::now();
    let tasks: Vec<_> = (0..1000)
        .map(|_| {
            let (limiter, cloud) = (limiter.clone(), Arc::clone(&cloud));
            tokio::spawn(async move {
                let ticket = limiter.ticket(Turn::Later);
                loop {
                    let permit = limiter.acquire(ticket, soon()).await.unwrap();
                    let taken = cloud.lock().unwrap().take();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    if taken {
                        permit.accepted();
                        return;
                    }
                    permit.refused();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let took = start.elapsed().as_secs_f64();
    let refused = cloud.lock().unwrap().refused;
    // 1000 requests at 20 a second are 50 s at best.
    assert!(took < 62.5, "took {took} s with {refused} refusals");
    assert!(refused < 100, "{refused} refusals in {took} s");
}

#[tokio::test(start_paused = true)]
async fn reads_go_on_under_a_flood_of_changes() {
    let pause = Backoff::new(SECOND, SECOND).unwrap();
    let limits = Limits::new(10, 10, Unit::Per(SECOND), pause).unwrap().sharing(3);
    let limiter = Limiter::new(limits, fastrand::Rng::with_seed(1));
    for _ in 0..1000 {
        let (limiter, ticket) = (limiter.clone(), limiter.ticket(Turn::First));
        tokio::spawn(async move { limiter.acquire(ticket, soon()).await.map(Permit::accepted) });
    }
    while limiter.waiting() < 990 {
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    for _ in 0..25 {
        permit(&limiter, Turn::Later).await.accepted();
    }
    // A quarter of ten a second.
    assert!(start.elapsed() <= 11 * SECOND, "{:?}", start.elapsed());
    assert!(limiter.waiting() > 900 - 11 * 10, "and the changes went on too");
}

#[tokio::test(start_paused = true)]
async fn busy_with_our_own_is_waited_for_and_not_paused() {
    let limiter = limiter(2, 4, Unit::AtATime);
    let mut running = permit(&limiter, Turn::First).await;
    running.took();
    permit(&limiter, Turn::First).await.refused();
    assert!((limiter.width() - 1.0).abs() < 1e-9, "{}", limiter.width());
    let ticket = limiter.ticket(Turn::First);
    assert!(limiter.acquire(ticket, Instant::now() + 60 * SECOND).await.is_err(), "one at a time now");
    drop(running);
    let start = Instant::now();
    permit(&limiter, Turn::First).await.accepted();
    assert_eq!(start.elapsed(), Duration::ZERO, "nothing of ours runs, so nothing explains a pause");
    // Alone and refused, somebody else keeps the cloud busy: that is paused for.
    permit(&limiter, Turn::First).await.refused();
    let start = Instant::now();
    let mut prober = permit(&limiter, Turn::First).await;
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    // What it began goes on; it is taken, so the gate is open for those that fit beside it.
    prober.took();
    assert!(limiter.acquire(ticket, Instant::now() + 60 * SECOND).await.is_err(), "none fits");
    drop(prober);
    assert!(limiter.acquire(ticket, Instant::now()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refused_number_at_a_time_is_tried_again_seldom() {
    let mut refusals = 0;
    let limiter = limiter(1, 8, Unit::AtATime);
    for _ in 0..100 {
        let mut only = permit(&limiter, Turn::First).await;
        only.took();
        // The cloud takes one at a time.
        let ticket = limiter.ticket(Turn::First);
        if let Ok(second) = limiter.acquire(ticket, Instant::now()).await {
            second.refused();
            refusals += 1;
        }
    }
    assert!((5..=8).contains(&refusals), "{refusals}");
    // What was learned can be handed on.
    let pause = Backoff::new(SECOND, SECOND).unwrap();
    let limits = Limits::new(1, 8, Unit::AtATime, pause).unwrap().knowing(limiter.refused_at());
    let next = Limiter::new(limits, fastrand::Rng::with_seed(1));
    for _ in 0..15 {
        permit(&next, Turn::First).await.accepted();
    }
    assert!(next.width() < 2.0, "{}", next.width());
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_takes_several_at_a_time_gets_several() {
    let limiter = limiter(1, 4, Unit::AtATime);
    let mut out = Vec::new();
    for _ in 0..20 {
        while let Ok(mut permit) = limiter.acquire(limiter.ticket(Turn::First), Instant::now()).await {
            permit.took();
            out.push(permit);
        }
        out.remove(0);
    }
    assert!((limiter.width() - 4.0).abs() < 1e-9, "{}", limiter.width());
}

#[test]
fn senseless_limits_are_refused() {
    let pause = Backoff::new(SECOND, SECOND).unwrap();
    assert_eq!(Limits::new(0, 1, Unit::AtATime, pause).unwrap_err(), LimitsError::Zero);
    assert_eq!(Limits::new(2, 1, Unit::AtATime, pause).unwrap_err(), LimitsError::Inverted);
}
