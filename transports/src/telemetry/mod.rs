//! The metrics of an endpoint: what each is called and means, and how it is recorded.
//!
//! ```text
//! metric   the definition of one metric, and its handles in the installed recorder
//! names    all metrics of this crate
//! handles  those that are recorded often, with handles that are registered once
//! watched  what is counted only while somebody watches
//! ```

mod handles;
mod metric;
mod names;
mod watched;

pub(crate) use self::handles::Handles;
pub use self::metric::{Described, Kind, Labels, Level, Metric, Timing, UNLABELED};
pub use self::names::*;
pub use self::watched::ROUND_TRIPS;

/// Counts a client that is refused, under a label of [`REFUSALS`].
pub(crate) fn refuse(reason: &'static str) {
    CONNECTS_REFUSED.increment([reason], 1);
}

/// Describes all metrics of this crate to the installed recorder, and registers them.
pub fn describe() {
    names::ALL.iter().for_each(|metric| metric.describe());
}

/// Returns the definition of every metric of this crate.
pub fn all() -> &'static [&'static dyn Described] {
    names::ALL
}
