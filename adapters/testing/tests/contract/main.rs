//! The contract over the engine in memory, and what becomes of adapters that break it.

mod broken;

use tower_channels_adapter_tests::contract;
use tower_channels_adapter_tests::contract::BusHarness;

contract!(BusHarness, start_paused = true);
