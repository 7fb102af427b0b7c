//! Live updates: a stock ticker and a scoreboard, `live:ticker` and `live:scores`.
//!
//! Each client's channel looks twice a second, and pushes what it sees only if the client has shown the last values
//! (`shown`). So one message at most is on its way: a client on a slow network gets fewer values, and each is the
//! newest when it is sent. Nothing queues up, on the server or in the network.
mod feeds;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::time::Instant;
use tower_channels::channel::{Error, Result};
use tower_channels::{Channel, Joined, Payload, Reply, Socket};

use crate::device::Device;
use feeds::{prices, scores};

const PERIOD: Duration = Duration::from_millis(500);
/// How many steps of the past a client gets when it joins.
const PAST: u64 = 60;

/// What a topic shows at a step.
type Feed = fn(u64) -> Value;

pub struct Live {
    feed: Feed,
    start: (u64, Instant),
    is_on_its_way: bool,
    skipped: u64,
}

impl Live {
    fn step(&self) -> u64 {
        self.start.0 + (self.start.1.elapsed().as_millis() / PERIOD.as_millis()) as u64
    }

    fn push_newest(&mut self, socket: &Socket<Self>) {
        let step = self.step();
        let skipped = std::mem::take(&mut self.skipped);
        let values = json!({ "step": step, "skipped": skipped, "values": (self.feed)(step) });
        socket.push("values", values);
        self.is_on_its_way = true;
    }
}

impl Channel for Live {
    type Assigns = Device;
    type Info = ();

    async fn join(topic: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        let feed = match topic {
            "live:ticker" => prices,
            "live:scores" => scores,
            _ => return Err(Error::reason("no such feed")),
        } as Feed;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let step = (now.as_millis() / PERIOD.as_millis()) as u64;
        let live = Self { feed, start: (step, Instant::now()), is_on_its_way: false, skipped: 0 };
        let past: Vec<_> = (step - PAST..=step).map(feed).collect();
        Ok(Joined::new(live).reply(json!({ "step": step, "past": past })))
    }

    /// A client that was away has not shown what was on its way.
    async fn resume(&mut self, _: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
        self.is_on_its_way = false;
        Ok(Some(json!({ "resumed": true }).into()))
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        socket.send_every(PERIOD, ());
        Ok(())
    }

    async fn handle_info(&mut self, (): (), socket: &Socket<Self>) -> Result<()> {
        if self.is_on_its_way {
            self.skipped += 1;
        } else {
            self.push_newest(socket);
        }
        Ok(())
    }

    async fn handle_in(&mut self, event: &str, _: Payload, socket: &Socket<Self>) -> Result<Reply> {
        if event != "shown" {
            return Err(Error::unmatched(event));
        }
        self.is_on_its_way = false;
        if self.skipped > 0 {
            self.push_newest(socket);
        }
        Ok(Reply::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::State;
    use crate::endpoint;
    use tower_channels::test;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_shows_values_slowly_gets_the_newest_and_no_queue() {
        let mut ada = test::connect(&endpoint(State::default()), &[("user", "ada")]).await.unwrap();
        ada.timeout(PERIOD * 100).join("live:ticker", json!({})).await;
        let first = ada.expect("values").await.parse::<Value>().unwrap();
        ada.refute("values", PERIOD * 20 + PERIOD / 2).await;

        ada.send("live:ticker", "shown", json!({}));
        let next = ada.expect("values").await.parse::<Value>().unwrap();
        assert_eq!(next["skipped"], 20);
        assert_eq!(next["step"], first["step"].as_u64().unwrap() + 20);
        assert_eq!(next["values"], prices(next["step"].as_u64().unwrap()));
        ada.refute("values", PERIOD * 20).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_shows_values_at_once_gets_each() {
        let mut ada = test::connect(&endpoint(State::default()), &[("user", "ada")]).await.unwrap();
        ada.join("live:scores", json!({})).await;
        for _ in 0..10 {
            let values = ada.expect("values").await.parse::<Value>().unwrap();
            assert_eq!(values["skipped"], 0);
            ada.send("live:scores", "shown", json!({}));
        }
    }
}
