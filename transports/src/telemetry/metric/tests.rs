use std::mem;
use std::sync::Arc;

use metrics::{CounterFn, GaugeFn, HistogramFn};
use parking_lot::Mutex;

use super::*;

define_metrics! {
    /// Doors
    /// that open.
    Counter OPENED = "opened_total" by [("door", &["front", "back"]), ("by", &["key"])];
    /// How long that takes.
    Histogram OPENING = "opening_seconds" by [];
    /// Open doors.
    Gauge OPEN = "open" by [];
}

/// What a recorder is told, one line each.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<String>>>);

impl Recorded {
    fn add(&self, line: String) {
        self.0.lock().push(line);
    }

    fn take(&self) -> Vec<String> {
        mem::take(&mut *self.0.lock())
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>, meaning: &str) {
        let unit = unit.expect("a unit").as_str();
        self.add(format!("{} in {unit}: {meaning}", name.as_str()));
    }

    fn register(&self, key: &Key) -> Arc<Handle> {
        self.add(format!("register {key}"));
        Arc::new(Handle(self.clone(), key.name().to_owned()))
    }
}

struct Handle(Recorded, String);

impl CounterFn for Handle {
    fn increment(&self, by: u64) {
        self.0.add(format!("{} +{by}", self.1));
    }

    fn absolute(&self, _: u64) {}
}

impl GaugeFn for Handle {
    fn increment(&self, by: f64) {
        self.0.add(format!("{} {by:+}", self.1));
    }

    fn decrement(&self, _: f64) {}
    fn set(&self, _: f64) {}
}

impl HistogramFn for Handle {
    fn record(&self, _: f64) {
        self.0.add(format!("{} measured", self.1));
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe(&name, unit, &meaning);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe(&name, unit, &meaning);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.describe(&name, unit, &meaning);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.register(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.register(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.register(key))
    }
}

fn record(work: impl FnOnce(&Recorded)) -> Vec<String> {
    let recorded = Recorded::default();
    metrics::with_local_recorder(&recorded, || work(&recorded));
    recorded.take()
}

#[test]
fn every_combination_of_known_labels_exists_from_the_start() {
    let expected = [
        "opened_total in count: Doors that open.",
        "register Key(opened_total, [door = front, by = key])",
        "register Key(opened_total, [door = back, by = key])",
        "opening_seconds in seconds: How long that takes.",
        "register Key(opening_seconds)",
        "open in count: Open doors.",
        "register Key(open)",
    ];
    assert_eq!(record(|_| ALL.iter().for_each(|metric| metric.describe())), expected);
}

#[test]
fn a_counter_is_found_by_its_labels() {
    let counted = record(|_| OPENED.increment(["front", "key"], 2));
    assert_eq!(counted[1..], ["opened_total +2"]);
}

#[test]
fn a_clock_is_read_only_for_a_recorder() {
    assert!(Timing::new(OPENING.handle(UNLABELED)).start().is_none());
    let measured = record(|recorded| {
        let timing = Timing::new(OPENING.handle(UNLABELED));
        let started = timing.start();
        assert!(started.is_some());
        assert_eq!(recorded.take(), ["register Key(opening_seconds)"]);
        timing.stop(None);
        timing.stop(started);
    });
    assert_eq!(measured, ["opening_seconds measured"]);
}

#[test]
fn the_levels_of_several_endpoints_add_up() {
    let changes = record(|recorded| {
        let levels = [(); 2].map(|()| Level::new(OPEN.handle(UNLABELED)));
        recorded.take();
        levels[0].set(3);
        levels[1].set(2);
        levels[0].set(1);
    });
    assert_eq!(changes, ["open +3", "open +2", "open -2"]);
}
