//! Several nodes in one process, over an engine in memory, with paused time.

mod broadcasts;
mod disconnects;
mod failures;
mod histories;
mod listening;
mod moving;
mod nodes;
mod presence;
mod shutdown;
mod simulation;
mod support;
