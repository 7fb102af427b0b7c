use std::time::Duration;

use tower_channels::channel::Result;
use tower_channels::{Channel, Endpoint, Joined, Payload, Socket};

use super::*;

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }
}

fn endpoint() -> Endpoint<()> {
    Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*").build()
}

#[tokio::test(start_paused = true)]
async fn samples_are_taken_while_a_page_is_open_and_then_forgotten() {
    let endpoint = endpoint();
    let monitor = Monitor::new(endpoint.inspect());
    let pages = PubSub::new();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(monitor.is_idle());

    let (one, other) = (monitor.open(&pages), monitor.open(&pages));
    tokio::time::sleep(Duration::from_millis(1)).await;
    endpoint.broadcast("room:1", "new_msg", serde_json::json!({}));
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(monitor.samples().len(), 3);
    assert!(monitor.rate("room:1") > 0.0);
    drop(one);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(monitor.samples().len(), 5);
    drop(other);
    assert!(monitor.is_idle());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(monitor.is_idle());
}

#[tokio::test(start_paused = true)]
async fn no_more_samples_are_kept_than_are_shown() {
    let monitor = Monitor::new(endpoint().inspect());
    let _page = monitor.open(&PubSub::new());
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(monitor.samples().len(), SAMPLES);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_opens_after_all_others_have_closed_begins_anew() {
    let monitor = Monitor::new(endpoint().inspect());
    let pages = PubSub::new();
    for _ in 0..3 {
        let page = monitor.open(&pages);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(monitor.samples().len(), 2);
        drop(page);
    }
}
