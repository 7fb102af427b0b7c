//! Which node has a session: the records of sessions in the engine's store.

mod claim;
#[cfg(any(test, feature = "unstable-internals"))]
#[doc(hidden)]
pub mod model;
mod record;
mod records;
