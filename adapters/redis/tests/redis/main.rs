//! The adapter over real servers: Redis, Valkey, a Redis Cluster, Sentinel.

mod connect;
mod contract;
mod faults;
mod node;
mod nodes;
mod servers;
#[cfg(feature = "tls")]
mod tls;
