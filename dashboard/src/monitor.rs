//! [`Monitor`]: what the pages that are open share. While none is, there is nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tower_channels::PubSub;
use tower_channels::inspect::Inspect;

use crate::rates::Rates;
use crate::sampling::{self, Sample};

/// What the pages that are open share.
pub(crate) struct Monitor {
    inspect: Inspect,
    /// Held for a few steps, and never while another lock is taken.
    watching: Mutex<Watching>,
    /// Held while a list is read: one at a time, however many pages ask.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Watching {
    pages: usize,
    samples: VecDeque<Sample>,
    rates: Rates,
    task: Option<JoinHandle<()>>,
}

/// A page that is open. Dropped with the last one, the samples end and are forgotten.
pub(crate) struct Page(Arc<Monitor>);

/// How many samples are kept: five minutes.
pub(crate) const SAMPLES: usize = 300;

impl Monitor {
    pub(crate) fn new(inspect: Inspect) -> Arc<Self> {
        let (watching, reading) = (Mutex::default(), tokio::sync::Mutex::default());
        Arc::new(Self { inspect, watching, reading })
    }

    pub(crate) fn inspect(&self) -> &Inspect {
        &self.inspect
    }

    /// Opens a page. With the first one the samples begin, which are broadcast to all.
    pub(crate) fn open(self: &Arc<Self>, pages: &PubSub) -> Page {
        let is_first = {
            let mut watching = self.watching.lock();
            watching.pages += 1;
            watching.pages == 1
        };
        let page = Page(Arc::clone(self));
        if is_first {
            let task = sampling::run(Arc::downgrade(self), self.inspect.clone(), pages.clone());
            let task = tokio::spawn(task);
            self.watching.lock().task = Some(task);
        }
        page
    }

    /// Returns the samples so far.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.watching.lock().samples.iter().copied().collect()
    }

    /// Adds a sample, and the broadcasts of its time.
    pub(crate) fn add(&self, sample: Sample, broadcasts: Vec<(String, u64)>, seconds: f64) {
        let mut watching = self.watching.lock();
        if watching.pages == 0 {
            return;
        }
        watching.rates.add(broadcasts, seconds);
        watching.samples.push_back(sample);
        if watching.samples.len() > SAMPLES {
            watching.samples.pop_front();
        }
    }

    /// Returns how many broadcasts a topic has in a second.
    pub(crate) fn rate(&self, topic: &str) -> f64 {
        self.watching.lock().rates.of(topic)
    }

    /// Returns the busiest topics.
    pub(crate) fn busiest(&self) -> Vec<(String, f64)> {
        self.watching.lock().rates.all()
    }

    /// Waits until no other list is read.
    pub(crate) async fn begin_reading(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.reading.lock().await
    }

    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let watching = self.watching.lock();
        watching.pages == 0
            && watching.task.is_none()
            && watching.samples.capacity() == 0
            && watching.rates.all().is_empty()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut watching = self.0.watching.lock();
        watching.pages -= 1;
        if watching.pages > 0 {
            return;
        }
        let last = std::mem::take(&mut *watching);
        drop(watching);
        last.task.iter().for_each(JoinHandle::abort);
    }
}

#[cfg(test)]
mod tests;
