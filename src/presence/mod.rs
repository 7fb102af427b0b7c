//! Presence: who is on a topic.

#![allow(dead_code)]

mod tracker;

#[doc(hidden)]
pub use self::tracker::model;
