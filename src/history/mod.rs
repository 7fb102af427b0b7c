//! Topics with a history: what is broadcast on them is kept, numbered, and read again by clients that return.

mod policy;
mod position;

pub use self::policy::History;
pub use self::position::{InvalidPosition, Position};
