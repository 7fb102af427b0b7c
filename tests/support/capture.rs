//! Captures what the library logs and counts.

#![allow(dead_code, reason = "not every test uses all of it")]

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tracing::field::{Field, Visit};
use tracing::{Level, span};

/// The log lines and the counters of a scenario.
#[derive(Clone, Default)]
pub(crate) struct Captured {
    lines: Arc<Mutex<Vec<(Level, String)>>>,
    counters: Arc<Mutex<Vec<String>>>,
}

impl Captured {
    /// The log lines: `message field=value`.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().expect("not poisoned");
        lines.iter().map(|(_, line)| line.clone()).collect()
    }

    /// The log lines of one level.
    pub(crate) fn at(&self, level: Level) -> Vec<String> {
        let lines = self.lines.lock().expect("not poisoned");
        lines.iter().filter(|line| line.0 == level).map(|(_, line)| line.clone()).collect()
    }

    /// How often a counter was incremented. Labels follow its name: `name{key=value}`.
    #[allow(dead_code, reason = "not every suite counts")]
    pub(crate) fn count(&self, counter: &str) -> usize {
        let counters = self.counters.lock().expect("not poisoned");
        counters.iter().filter(|name| *name == counter).count()
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
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    metrics::with_local_recorder(&captured, || {
        tracing::subscriber::with_default(captured.clone(), || {
            runtime.block_on(scenario);
            // The tasks end while everything is still captured.
            drop(runtime);
        });
    });
    captured
}

struct Increments(Arc<Mutex<Vec<String>>>, String);

impl CounterFn for Increments {
    fn increment(&self, _: u64) {
        self.0.lock().expect("not poisoned").push(self.1.clone());
    }

    fn absolute(&self, _: u64) {}
}

impl Recorder for Captured {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = match &*labels.join(",") {
            "" => key.name().to_owned(),
            labels => format!("{}{{{labels}}}", key.name()),
        };
        Counter::from_arc(Arc::new(Increments(Arc::clone(&self.counters), name)))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl tracing::Subscriber for Captured {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_channels")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.lines.lock().expect("not poisoned").push((*event.metadata().level(), line.0));
    }

    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
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
