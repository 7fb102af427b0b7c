//! Captures what the library logs and counts.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Label, Metadata,
    Recorder, SharedString, Unit,
};
use tracing::field::{Field, Visit};
use tracing::{Level, span};

/// The log lines and the metrics of a scenario.
#[derive(Clone, Default)]
pub(crate) struct Captured {
    lines: Arc<Mutex<Vec<Logged>>>,
    counters: Arc<Mutex<Vec<String>>>,
    /// Each counter's sum, gauge's value and histogram's count.
    series: Arc<Mutex<BTreeMap<String, f64>>>,
    spans: Arc<Mutex<Spans>>,
}

struct Logged {
    level: Level,
    line: String,
    /// The spans that it was logged in, the outermost first.
    spans: Vec<String>,
}

/// All spans, by their id less one, and those that are entered.
#[derive(Default)]
struct Spans {
    all: Vec<(String, Option<u64>)>,
    entered: Vec<u64>,
}

impl Spans {
    /// The names of a span and its parents, the outermost first.
    fn path(&self, mut id: Option<u64>) -> Vec<String> {
        let mut path = Vec::new();
        while let Some(span) = id {
            let (name, parent) = &self.all[span as usize - 1];
            path.insert(0, name.clone());
            id = *parent;
        }
        path
    }
}

impl Captured {
    /// The log lines: `message field=value`.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().expect("not poisoned");
        lines.iter().map(|logged| logged.line.clone()).collect()
    }

    /// The log lines of one level.
    pub(crate) fn at(&self, level: Level) -> Vec<String> {
        let lines = self.lines.lock().expect("not poisoned");
        let lines = lines.iter().filter(|logged| logged.level == level);
        lines.map(|logged| logged.line.clone()).collect()
    }

    /// How often a counter was incremented. Labels follow its name: `name{key=value}`.
    #[allow(dead_code, reason = "not every suite counts")]
    pub(crate) fn count(&self, counter: &str) -> usize {
        let counters = self.counters.lock().expect("not poisoned");
        counters.iter().filter(|name| *name == counter).count()
    }

    /// The spans, from the outermost, in which the first line was logged that contains this text.
    pub(crate) fn spans_of(&self, text: &str) -> Vec<String> {
        let lines = self.lines.lock().expect("not poisoned");
        let line = lines.iter().find(|logged| logged.line.contains(text));
        line.map(|logged| logged.spans.clone()).unwrap_or_default()
    }

    /// The value of a counter or a gauge, or how often a histogram was recorded; `None` for one that
    /// does not exist.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        self.series.lock().expect("not poisoned").get(series).copied()
    }

    /// Runs a scenario in a runtime with paused time, and captures what is logged and counted meanwhile.
    pub(crate) fn run<F: Future>(&self, scenario: F) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        metrics::with_local_recorder(self, || {
            tracing::subscriber::with_default(self.clone(), || {
                runtime.block_on(scenario);
                // The tasks end while everything is still captured.
                drop(runtime);
            });
        });
    }

    /// Returns whether there is a metric of this name, whatever its labels.
    pub(crate) fn has_metric(&self, name: &str) -> bool {
        let series = self.series.lock().expect("not poisoned");
        series.keys().any(|series| series.split('{').next() == Some(name))
    }

    /// Asserts that some log line contains all of these texts.
    #[track_caller]
    pub(crate) fn expect_line(&self, texts: &[&str]) {
        let lines = self.lines();
        let found = lines.iter().any(|line| texts.iter().all(|text| line.contains(text)));
        assert!(found, "no line with {texts:?} in {lines:#?}");
    }
}

/// Runs a scenario in a runtime with paused time, and captures what is logged and counted meanwhile.
pub(crate) fn capture<F: Future>(scenario: F) -> Captured {
    let captured = Captured::default();
    captured.run(scenario);
    captured
}

/// One series of a [`Captured`].
struct Series(Captured, String);

impl Series {
    fn change(&self, change: impl FnOnce(&mut f64)) {
        let mut series = self.0.series.lock().expect("not poisoned");
        change(series.entry(self.1.clone()).or_default());
    }
}

impl CounterFn for Series {
    fn increment(&self, by: u64) {
        self.0.counters.lock().expect("not poisoned").push(self.1.clone());
        self.change(|value| *value += by as f64);
    }

    fn absolute(&self, _: u64) {}
}

impl GaugeFn for Series {
    fn increment(&self, by: f64) {
        self.change(|value| *value += by);
    }

    fn decrement(&self, by: f64) {
        self.change(|value| *value -= by);
    }

    fn set(&self, to: f64) {
        self.change(|value| *value = to);
    }
}

impl HistogramFn for Series {
    fn record(&self, _: f64) {
        self.change(|value| *value += 1.0);
    }
}

impl Captured {
    fn register(&self, key: &Key) -> Arc<Series> {
        let label = |label: &Label| format!("{}={}", label.key(), label.value());
        let labels: Vec<_> = key.labels().map(label).collect();
        let name = match &*labels.join(",") {
            "" => key.name().to_owned(),
            labels => format!("{}{{{labels}}}", key.name()),
        };
        let series = Series(self.clone(), name);
        series.change(|_| ());
        Arc::new(series)
    }
}

impl Recorder for Captured {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

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

impl tracing::Subscriber for Captured {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_channels")
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        let mut line = Line::default();
        span.record(&mut line);
        let name = format!("{}{}", span.metadata().name(), line.0);
        let mut spans = self.spans.lock().expect("not poisoned");
        let parent = span.parent().map(span::Id::into_u64);
        let parent = parent.or(spans.entered.last().copied().filter(|_| span.is_contextual()));
        spans.all.push((name, parent));
        span::Id::from_u64(spans.all.len() as u64)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let spans = self.spans.lock().expect("not poisoned");
        let spans = spans.path(spans.entered.last().copied());
        let (level, line) = (*event.metadata().level(), line.0);
        self.lines.lock().expect("not poisoned").push(Logged { level, line, spans });
    }

    fn enter(&self, id: &span::Id) {
        self.spans.lock().expect("not poisoned").entered.push(id.into_u64());
    }

    fn exit(&self, _: &span::Id) {
        self.spans.lock().expect("not poisoned").entered.pop();
    }
}

/// One log line, as a subscriber prints it that trusts its fields.
#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, " {}={value}", field.name());
    }
}
