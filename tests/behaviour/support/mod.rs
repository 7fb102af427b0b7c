//! The clients of the suite and the server under test.

pub(crate) mod base64;
pub(crate) mod binary;
mod client;
pub(crate) mod connection;
mod corpus;
pub(crate) mod lobby;
pub(crate) mod longpoll;
mod notation;
mod raw_http;
pub(crate) mod raw_websocket;
mod server;
mod stage;

use std::panic::Location;
use std::time::Duration;

pub(crate) use client::Client;
pub(crate) use connection::Connection;
pub(crate) use longpoll::LongPoll;
pub(crate) use raw_http::{Http, Response};
pub(crate) use raw_websocket::{Frame, RawWebSocket, UPGRADE};
pub(crate) use server::Server;
pub(crate) use stage::{Stage, Transport, Version};

/// How long any expected event may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(10);

/// Awaits a future within the deadline, or panics with the location of the caller.
#[track_caller]
pub(crate) fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = Location::caller();
    async move {
        match tokio::time::timeout(DEADLINE, future).await {
            Ok(output) => output,
            Err(_) => panic!("{caller}: still waiting after {DEADLINE:?}"),
        }
    }
}

/// Defines one test per scenario, transport and version. The list is also the file's table of
/// contents.
macro_rules! scenarios {
    (
        $(everywhere: [$($all:ident),* $(,)?])?
        $(v1: [$($v1:ident),* $(,)?])?
        $(v2: [$($v2:ident),* $(,)?])?
    ) => {
        mod websocket_v1 { tests_on!(WebSocket V1: $($($all)*)? $($($v1)*)?); }
        mod websocket_v2 { tests_on!(WebSocket V2: $($($all)*)? $($($v2)*)?); }
        mod longpoll_v1 { tests_on!(LongPoll V1: $($($all)*)? $($($v1)*)?); }
        mod longpoll_v2 { tests_on!(LongPoll V2: $($($all)*)? $($($v2)*)?); }
    };
}

macro_rules! tests_on {
    ($transport:ident $version:ident: $($scenario:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                use crate::support::{Stage, Transport, Version};
                super::$scenario(Stage::set(Transport::$transport, Version::$version).await).await;
            }
        )*
    };
}
