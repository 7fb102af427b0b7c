//! What the tests of adapters and stores share: engines on loopback, a proxy that breaks their connections, and the
//! contracts that every [`Adapter`](tower_channels::adapter::Adapter) and every
//! [`HistoryStore`](tower_channels::adapter::HistoryStore) keeps.
//!
//! A contract is a suite of tests that [`contract!`] runs over a [`Harness`](contract::Harness), and
//! [`histories_contract!`] over one of [`histories`]:
//!
//! ```ignore
//! tower_channels_adapter_tests::contract!(MyHarness);
//! ```

pub mod contract;
pub mod engines;
pub mod folder;
pub mod histories;
pub mod proxy;
