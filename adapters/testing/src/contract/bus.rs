//! [`BusHarness`]: the contract over the engine in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tower_channels::adapter::Adapter;
use tower_channels::test::{Bus, Place};

use super::{Harness, Line, Settings};

/// One [`Bus`] for each application.
#[derive(Debug, Default)]
pub struct BusHarness {
    buses: Mutex<BTreeMap<&'static str, Bus>>,
}

impl BusHarness {
    fn buses(&self) -> Vec<Bus> {
        self.buses.lock().expect("not poisoned").values().cloned().collect()
    }
}

impl Harness for BusHarness {
    async fn start() -> Option<Self> {
        Some(Self::default())
    }

    async fn connect(&self, settings: Settings) -> (Box<dyn Adapter>, Box<dyn Line>) {
        let bus = self.buses.lock().expect("not poisoned").entry(settings.app).or_default().clone();
        let adapter = bus.adapter().max_waiting(settings.max_waiting).max_age(settings.max_age);
        let place = adapter.place();
        (Box::new(adapter), Box::new(BusLine { bus, place }))
    }

    async fn kill(&mut self) {
        self.buses().iter().for_each(Bus::stop);
    }

    async fn restart(&mut self) {
        self.buses().iter().for_each(Bus::forget_records);
        self.buses().iter().for_each(Bus::restart);
    }

    async fn connections(&self) -> usize {
        self.buses().iter().map(Bus::connections).sum()
    }
}

struct BusLine {
    bus: Bus,
    place: Place,
}

impl Line for BusLine {
    fn cut(&self) {
        self.bus.cut(self.place);
    }

    fn stall(&self) {
        self.bus.stall(self.place);
    }

    fn heal(&self) {
        self.bus.heal(self.place);
    }
}
