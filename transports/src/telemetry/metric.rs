//! [`Metric`]: one metric, defined once.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, IntoF64, Key, KeyName, Label, Metadata, Recorder, SharedString,
    Unit, with_recorder,
};
use tokio::time::Instant;

/// The labels of a metric, each with the values that are known in advance.
pub type Labels = &'static [(&'static str, &'static [&'static str])];

/// The definition of one metric. `K` is the handle by which it is recorded: a counter, a gauge or a
/// histogram of the `metrics` facade.
///
/// The unit follows from the name: seconds and bytes from the suffix, anything else is a count.
pub struct Metric<K> {
    name: &'static str,
    meaning: &'static str,
    labels: Labels,
    /// What was counted by [`increment`](Metric::increment), whatever the recorder.
    total: AtomicU64,
    kind: PhantomData<fn() -> K>,
}

/// The label values of a metric without labels.
pub const UNLABELED: [&str; 0] = [];

/// A metric of any kind.
pub trait Described: Sync {
    /// Returns the name.
    fn name(&self) -> &'static str;

    /// Returns what it is: `counter`, `gauge` or `histogram`.
    fn kind(&self) -> &'static str;

    /// Returns what it means, in a sentence or two.
    fn meaning(&self) -> &'static str;

    /// Returns the names of the labels.
    fn labels(&self) -> Vec<&'static str>;

    /// Returns what was counted by name in this process, with all label values together. What is frequent is counted by a
    /// handle, and is not part of it.
    fn total(&self) -> u64;

    /// Describes the metric to the installed recorder, and registers it with every combination of
    /// label values that is known in advance: a counter that has counted nothing reads 0.
    fn describe(&self);
}

/// A kind of handle.
pub trait Kind: Sized {
    /// What it is called.
    const NAME: &'static str;

    /// Describes a metric of this kind.
    fn describe(recorder: &dyn Recorder, name: KeyName, unit: Unit, meaning: SharedString);

    /// Registers a metric of this kind, and returns the handle.
    fn register(recorder: &dyn Recorder, key: &Key, metadata: &Metadata<'_>) -> Self;
}

impl<K: Kind> Metric<K> {
    /// Defines a metric. Use [`define_metrics!`](crate::define_metrics).
    #[must_use]
    pub const fn new(name: &'static str, meaning: &'static str, labels: Labels) -> Self {
        Self { name, meaning, labels, total: AtomicU64::new(0), kind: PhantomData }
    }

    /// Returns the handle for these values of the labels, in the order of their definition.
    pub fn handle<V>(&self, values: impl IntoIterator<Item = V>) -> K
    where
        V: Into<SharedString>,
    {
        let labels = self.labels.iter().zip(values);
        let labels = labels.map(|((name, _), value)| Label::new(*name, value)).collect::<Vec<_>>();
        let key = Key::from_parts(self.name, labels);
        with_recorder(|recorder| K::register(recorder, &key, &METADATA))
    }
}

impl Metric<Counter> {
    /// Counts something rare. What is frequent keeps its [handle](Self::handle).
    pub fn increment<V>(&self, values: impl IntoIterator<Item = V>, by: u64)
    where
        V: Into<SharedString>,
    {
        self.handle(values).increment(by);
        self.count(by);
    }

    /// Adds to the [total](Described::total), for what a handle counts and is rare all the same.
    pub fn count(&self, by: u64) {
        self.total.fetch_add(by, Ordering::Relaxed);
    }

    /// Counts something rare that has no labels.
    pub fn add(&self, by: u64) {
        self.increment(UNLABELED, by);
    }
}

impl<K: Kind> Described for Metric<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kind(&self) -> &'static str {
        K::NAME
    }

    fn meaning(&self) -> &'static str {
        self.meaning.trim_start()
    }

    fn labels(&self) -> Vec<&'static str> {
        self.labels.iter().map(|(name, _)| *name).collect()
    }

    fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    fn describe(&self) {
        let unit = if self.name.ends_with("_seconds") {
            Unit::Seconds
        } else if self.name.ends_with("_bytes") {
            Unit::Bytes
        } else {
            Unit::Count
        };
        let meaning = self.meaning.trim_start().into();
        with_recorder(|recorder| K::describe(recorder, self.name.into(), unit, meaning));
        let mut combinations = vec![Vec::new()];
        for (_, values) in self.labels {
            let longer = combinations.iter().flat_map(|combination| {
                values.iter().map(move |value| [&combination[..], &[*value]].concat())
            });
            combinations = longer.collect();
        }
        combinations.into_iter().for_each(|combination| drop(self.handle(combination)));
    }
}

impl<K> fmt::Debug for Metric<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metric").field(&self.name).finish()
    }
}

impl Kind for Counter {
    const NAME: &'static str = "counter";

    fn describe(recorder: &dyn Recorder, name: KeyName, unit: Unit, meaning: SharedString) {
        recorder.describe_counter(name, Some(unit), meaning);
    }

    fn register(recorder: &dyn Recorder, key: &Key, metadata: &Metadata<'_>) -> Self {
        recorder.register_counter(key, metadata)
    }
}

impl Kind for Gauge {
    const NAME: &'static str = "gauge";

    fn describe(recorder: &dyn Recorder, name: KeyName, unit: Unit, meaning: SharedString) {
        recorder.describe_gauge(name, Some(unit), meaning);
    }

    fn register(recorder: &dyn Recorder, key: &Key, metadata: &Metadata<'_>) -> Self {
        recorder.register_gauge(key, metadata)
    }
}

impl Kind for Histogram {
    const NAME: &'static str = "histogram";

    fn describe(recorder: &dyn Recorder, name: KeyName, unit: Unit, meaning: SharedString) {
        recorder.describe_histogram(name, Some(unit), meaning);
    }

    fn register(recorder: &dyn Recorder, key: &Key, metadata: &Metadata<'_>) -> Self {
        recorder.register_histogram(key, metadata)
    }
}

const METADATA: Metadata<'static> =
    Metadata::new("tower_channels", metrics::Level::INFO, Some(module_path!()));

/// A histogram of durations. Without a recorder it reads no clock.
#[derive(Debug)]
pub struct Timing {
    histogram: Histogram,
    is_recorded: bool,
}

impl Timing {
    /// Creates a timing that is recorded in `histogram`.
    pub fn new(histogram: Histogram) -> Self {
        // The value of a handle that does nothing is never converted.
        let is_recorded = Cell::new(false);
        histogram.record_many(Probe(&is_recorded), 0);
        Self { histogram, is_recorded: is_recorded.get() }
    }

    /// Returns whether a recorder was installed when this was created.
    pub fn is_recorded(&self) -> bool {
        self.is_recorded
    }

    /// Returns the time if a recorder is installed.
    pub fn start(&self) -> Option<Instant> {
        self.is_recorded.then(Instant::now)
    }

    /// Records the time since `started`, if that was [taken](Self::start).
    pub fn stop(&self, started: Option<Instant>) {
        if let Some(started) = started {
            self.record(started.elapsed());
        }
    }

    /// Records a duration that was measured anyway.
    pub fn record(&self, duration: Duration) {
        self.histogram.record(duration);
    }
}

/// Notes that a handle reads its value.
struct Probe<'a>(&'a Cell<bool>);

impl IntoF64 for Probe<'_> {
    fn into_f64(self) -> f64 {
        self.0.set(true);
        0.0
    }
}

/// What one part of an endpoint contributes to a gauge. Several endpoints of one program add up.
#[derive(Debug)]
pub struct Level {
    gauge: Gauge,
    last: AtomicU64,
}

impl Level {
    /// Creates a contribution of 0.
    pub fn new(gauge: Gauge) -> Self {
        Self { gauge, last: AtomicU64::new(0) }
    }

    /// Changes the contribution. The caller holds no lock.
    pub fn set(&self, value: usize) {
        let value = value as u64;
        let last = self.last.swap(value, Ordering::Relaxed);
        self.gauge.increment(value as f64 - last as f64);
    }
}

/// Defines metrics, and a static `ALL` for the crate with all of them. The comment is the description
/// that recorders are told.
///
/// ```
/// use tower_channels_transports::define_metrics;
///
/// define_metrics! {
///     /// Frogs that were kissed.
///     Counter KISSES = "kisses_total" by [("result", &["prince", "frog"])];
/// }
/// KISSES.increment(["frog"], 1);
/// ```
#[macro_export]
macro_rules! define_metrics {
    ($(
        $(#[doc = $doc:literal])+
        $vis:vis $kind:ident $metric:ident = $name:literal by $labels:expr;
    )+) => {
        $(
            $(#[doc = $doc])+
            $vis static $metric: $crate::telemetry::Metric<metrics::$kind> =
                $crate::telemetry::Metric::new($name, concat!($($doc),+), &$labels);
        )+

        /// All metrics that are defined here.
        pub(crate) static ALL: &[&dyn $crate::telemetry::Described] = &[$(&$metric),+];
    };
}

#[cfg(test)]
mod tests;
