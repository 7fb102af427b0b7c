//! Three nodes and their clients on a faulty engine.

use tower_channels::internals::simulation::walk;

/// Nodes start, die and shut down, clients come and go, everybody broadcasts, and lines fail in every way.
/// Nothing arrives twice, in the wrong order or where it does not belong, nothing is lost without its
/// client being told, and once everything is mended the nodes agree. The first byte says how the nodes
/// are configured; each step takes two bytes: its kind and a value.
pub fn check(data: &[u8]) {
    walk(&data[..data.len().min(257)]);
}
