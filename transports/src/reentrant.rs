//! For tests: a metrics recorder and log subscriber that uses the library itself.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use tracing::span;

/// Calls a closure at every metric and every log line.
#[derive(Clone)]
struct Reentrant {
    act: Arc<dyn Fn() + Send + Sync>,
    calls: Arc<AtomicUsize>,
}

thread_local! {
    static IS_ACTING: Cell<bool> = const { Cell::new(false) };
}

impl Reentrant {
    fn act(&self) {
        if !IS_ACTING.replace(true) {
            (self.act)();
            self.calls.fetch_add(1, Ordering::Relaxed);
            IS_ACTING.set(false);
        }
    }
}

/// Runs `work` with a recorder and a subscriber that call `act` each time they are called. Returns how
/// often that was.
///
/// # Panics
///
/// If `work` does not end: `act` then waits for a lock that is held while it is called.
pub(crate) fn run(act: impl Fn() + Send + Sync + 'static, work: impl FnOnce() + Send) -> usize {
    let reentrant = Reentrant { act: Arc::new(act), calls: Arc::default() };
    let calls = Arc::clone(&reentrant.calls);
    let (done, is_done) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            tracing::subscriber::with_default(reentrant.clone(), || {
                metrics::with_local_recorder(&reentrant, work);
            });
            let _ = done.send(());
        });
        if is_done.recv_timeout(Duration::from_secs(20)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("deadlock: the library calls a recorder or subscriber under a lock");
            std::process::abort();
        }
    });
    calls.load(Ordering::Relaxed)
}

impl metrics::Recorder for Reentrant {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        self.act();
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        self.act();
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        self.act();
        Histogram::noop()
    }
}

impl tracing::Subscriber for Reentrant {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.act();
    }

    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
