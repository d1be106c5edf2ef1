//! Power of two choices: of two endpoints taken at random, the one whose answers cost less, weighed by what it has in
//! flight. The cost is a moving average that decays with time, so that an endpoint that is slow is avoided, and tried again
//! later; one that gives no answer counts in full at once.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::Endpoint;
use crate::tables::Backend;

/// Answers faster than this are alike: within a node, noise is larger than what could be gained.
const FLOOR_NANOS: u64 = 5_000_000;
/// Costs that differ by less than this factor are alike.
const ALIKE: u64 = 2;
/// After this time without an answer the average has lost two thirds of its weight. Short, so that an endpoint that was slow is tried
/// again within seconds.
const DECAY: Duration = Duration::from_secs(1);
/// How long an endpoint that could not be reached is avoided, the first time; doubled with each failure after it.
const AVOIDED: Duration = Duration::from_millis(500);
/// No longer than this.
const AVOIDED_AT_MOST: Duration = Duration::from_secs(10);

/// What an endpoint's answers have cost, without a lock.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    /// Moving average of the time to an answer.
    nanos: AtomicU64,
    /// When the average was last touched; see [`now`].
    touched: AtomicU64,
    failures: AtomicU32,
    /// Until when it is avoided; see [`now`].
    avoided: AtomicU64,
}

/// Nanoseconds since the first call.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    // 584 years fit.
    Instant::now().saturating_duration_since(*START).as_nanos() as u64
}

impl Load {
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Connections and requests that use the endpoint now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// What the average has come down to by now.
    fn decayed(&self, now: u64) -> f64 {
        let age = now.saturating_sub(self.touched.load(Relaxed)) as f64;
        self.nanos.load(Relaxed) as f64 * (-age / DECAY.as_nanos() as f64).exp()
    }

    pub(super) fn answered(&self, took: Duration) {
        let (now, took) = (now(), took.as_nanos() as f64);
        let before = self.decayed(now);
        // One answer counts for an eighth: a single slow one is as often the request's doing, or the machine's, as the endpoint's, and what
        // is slow again and again shows soon, in what it has in flight as well. Two threads at a time lose one of two answers, which does
        // no harm.
        let after = before + (took - before) / 8.0;
        self.nanos.store(after as u64, Relaxed);
        self.touched.store(now, Relaxed);
        self.reached();
    }

    /// Nobody waits any longer. It would have taken at least as long: an endpoint that hangs gets no more.
    pub(super) fn gave_no_answer(&self, waited: Duration) {
        let now = now();
        if waited.as_nanos() as f64 > self.decayed(now) {
            self.nanos.store(waited.as_nanos() as u64, Relaxed);
            self.touched.store(now, Relaxed);
        }
    }

    /// The endpoint could be reached: it is not avoided any longer.
    pub fn reached(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.avoided.store(0, Relaxed);
        }
    }

    /// The endpoint could not be reached.
    pub fn failed(&self) {
        let failures = self.failures.fetch_add(1, Relaxed).min(10);
        let time = AVOIDED.saturating_mul(1 << failures).min(AVOIDED_AT_MOST);
        self.avoided.store(now() + time.as_nanos() as u64, Relaxed);
    }

    /// It is chosen although it could not be reached before: until that is known better, by nobody else.
    fn tried_again(&self, now: u64) {
        if self.failures.load(Relaxed) != 0 {
            self.avoided.store(now + AVOIDED_AT_MOST.as_nanos() as u64, Relaxed);
        }
    }

    fn is_avoided(&self, now: u64) -> bool {
        let until = self.avoided.load(Relaxed);
        until != 0 && until > now
    }

    fn cost(&self, now: u64) -> u64 {
        (self.decayed(now) as u64)
            .max(FLOOR_NANOS)
            .saturating_mul(u64::from(self.in_flight()) + 1)
    }
}

/// Any number below `n`, which is not 0. Good enough to choose by, and nothing else.
pub(crate) fn random_below(n: usize) -> usize {
    ((u128::from(random()) * n as u128) >> 64) as usize
}

/// 64 bits that nobody else is likely to have, and that anybody could guess who has seen others.
pub(crate) fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0) | 1);
    }
    STATE.with(|state| {
        // splitmix64
        let mut z = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(z);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// The best of what is left, by degrees: live and reachable, live, terminating.
pub(super) fn pick<'a>(backend: &'a Backend, avoid: &[SocketAddr]) -> Option<&'a Arc<Endpoint>> {
    let (live, terminating) = backend.endpoints.split_at(backend.live);
    let now = now();
    let picked = among(live, avoid, |load| !load.is_avoided(now), now)
        .or_else(|| among(live, avoid, |_| true, now))
        .or_else(|| among(terminating, avoid, |_| true, now));
    picked.inspect(|endpoint| endpoint.load.tried_again(now))
}

fn among<'a>(
    endpoints: &'a [Arc<Endpoint>],
    avoid: &[SocketAddr],
    fits: impl Fn(&Load) -> bool,
    now: u64,
) -> Option<&'a Arc<Endpoint>> {
    let fits = |endpoint: &&Arc<Endpoint>| fits(&endpoint.load) && !avoid.contains(&endpoint.address);
    match endpoints {
        [] => return None,
        [only] => return Some(only).filter(fits),
        _ => {}
    }
    let first = random_below(endpoints.len());
    let second = (first + 1 + random_below(endpoints.len() - 1)) % endpoints.len();
    let (a, b) = (&endpoints[first], &endpoints[second]);
    match (fits(&a), fits(&b)) {
        (true, true) => {
            let (cost_a, cost_b) = (a.load.cost(now), b.load.cost(now));
            // `a` was taken at random, so it is a fair choice between equals.
            Some(
                if cost_b.saturating_mul(ALIKE) < cost_a || (cost_b < cost_a && b.load.in_flight() < a.load.in_flight())
                {
                    b
                } else {
                    a
                },
            )
        }
        (true, false) => Some(a),
        (false, true) => Some(b),
        // Rare: most are avoided. Start anywhere, so that the first of the rest does not get everything.
        (false, false) => endpoints[first..].iter().chain(&endpoints[..first]).find(fits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Lease;
    use weft_proto::rpc::discovery::Protocol;

    fn backend(live: usize, terminating: usize) -> Arc<Backend> {
        let endpoint = |n: usize| {
            let mut endpoint = Endpoint::at(SocketAddr::from(([10, 0, 0, n as u8], 80)));
            endpoint.terminating = n >= live;
            Arc::new(endpoint)
        };
        let endpoints = (0..live + terminating).map(endpoint).collect();
        Arc::new(Backend {
            id: "shop/cart:80".into(),
            protocol: Protocol::Detect,
            endpoints,
            live,
            tls: None,
            refused: None,
        })
    }

    fn counts(backend: &Arc<Backend>, picks: usize, each: impl Fn(&Endpoint)) -> Vec<usize> {
        let mut counts = vec![0; backend.endpoints.len()];
        for _ in 0..picks {
            let lease = Lease::new(pick(backend, &[]).unwrap().clone());
            each(&lease);
            let position = backend
                .endpoints
                .iter()
                .position(|one| Arc::ptr_eq(one, &lease))
                .unwrap();
            counts[position] += 1;
        }
        counts
    }

    #[tokio::test(start_paused = true)]
    async fn of_300_calls_one_after_the_other_each_of_three_pods_gets_60() {
        let backend = backend(3, 0);
        // Latencies that differ as they do between pods that do the same: up to a half.
        let each = |endpoint: &Endpoint| {
            let millis = 2 + u64::from(endpoint.address.ip().to_string().ends_with('2'));
            endpoint.load.answered(Duration::from_millis(millis));
        };
        let counts = counts(&backend, 300, each);
        assert!(counts.iter().all(|count| *count >= 60), "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_answer_of_a_busy_machine_keeps_nobody_out() {
        let backend = backend(3, 0);
        backend.endpoints[1].load.answered(Duration::from_millis(60));
        let each = |endpoint: &Endpoint| endpoint.load.answered(Duration::from_millis(2));
        let counts = counts(&backend, 300, each);
        assert!(counts.iter().all(|count| *count >= 60), "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_endpoint_gets_little_and_is_tried_again_later() {
        let backend = backend(3, 0);
        backend.endpoints[0].load.answered(Duration::from_millis(200));
        let slow = counts(&backend, 300, |_| {});
        assert_eq!(slow[0], 0, "{slow:?}");
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(counts(&backend, 300, |_| {})[0] >= 60);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_flight_counts() {
        let backend = backend(2, 0);
        let _held: Vec<_> = (0..10).map(|_| Lease::new(backend.endpoints[0].clone())).collect();
        assert_eq!(counts(&backend, 100, |_| {}), [0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_cannot_be_reached_is_avoided_for_a_while_but_better_than_none() {
        let backend = backend(2, 1);
        backend.endpoints[0].load.failed();
        assert_eq!(counts(&backend, 50, |_| {}), [0, 50, 0]);
        backend.endpoints[1].load.failed();
        assert_eq!(counts(&backend, 50, |_| {})[2], 0);
        tokio::time::sleep(AVOIDED).await;
        backend.endpoints[1].load.reached();
        // One tries it again; the others wait for what comes of it.
        let counts = counts(&backend, 100, |_| {});
        assert!(counts[0] == 1 || counts[0] == 0, "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn those_on_their_way_out_are_used_when_nothing_else_is_left() {
        assert_eq!(counts(&backend(0, 1), 5, |_| {}), [5]);
        let backend = backend(1, 1);
        let live = backend.endpoints[0].address;
        assert!(pick(&backend, &[live]).unwrap().terminating);
        assert!(pick(&backend, &[live, backend.endpoints[1].address]).is_none());
        assert!(pick(&super::tests::backend(0, 0), &[]).is_none());
    }

    #[test]
    fn random_numbers_stay_below_and_reach_all() {
        let mut seen = [false; 7];
        (0..1000).for_each(|_| seen[random_below(7)] = true);
        assert_eq!(seen, [true; 7]);
    }
}
