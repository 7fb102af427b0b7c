//! The contract over the engine in memory, and what becomes of adapters that break it.

mod broken;
mod broken_histories;
mod broken_store;

use tower_channels_adapter_tests::contract::BusHarness;
use tower_channels_adapter_tests::histories::ModelHarness;
use tower_channels_adapter_tests::{
    contract, histories_contract, records_contract, sharing_contract,
};

contract!(BusHarness, start_paused = true);
records_contract!(BusHarness, start_paused = true);
sharing_contract!(BusHarness, start_paused = true);
contract! { @tests BusHarness, (start_paused = true) a_record_is_forgotten_after_its_time }
histories_contract!(ModelHarness, start_paused = true);
