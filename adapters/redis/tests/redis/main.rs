//! The adapter over real servers: Redis, Valkey, a Redis Cluster, Sentinel.

mod connect;
mod contract;
mod faults;
mod histories;
mod history;
mod keeper;
mod node;
mod nodes;
mod resharding;
mod servers;
#[cfg(feature = "tls")]
mod tls;
