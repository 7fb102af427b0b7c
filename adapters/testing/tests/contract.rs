//! The contract over the engine in memory.

use tower_channels_adapter_tests::contract;
use tower_channels_adapter_tests::contract::BusHarness;

contract!(BusHarness, start_paused = true);
