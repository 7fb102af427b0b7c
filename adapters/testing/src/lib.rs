//! What the tests of adapters share: engines on loopback, a proxy that breaks their connections, and the contract
//! that every [`Adapter`](tower_channels::adapter::Adapter) keeps.
//!
//! The contract is a suite of tests that [`contract!`] runs over a [`Harness`](contract::Harness):
//!
//! ```ignore
//! tower_channels_adapter_tests::contract!(MyHarness);
//! ```

pub mod contract;
pub mod engines;
pub mod proxy;
