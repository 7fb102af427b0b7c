//! Whole nodes that share the history of a topic, while the line of one of them breaks.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_channels::history::{Position, Since};
use tower_channels::pubsub::{Broadcast, Subscription};
use tower_channels::{History, Payload, PubSub, PubSubConfig};

use super::node::PATIENCE;
use super::{Harness, Line, Settings, World};

const TOPIC: &str = "room:1";

/// A publisher and a subscriber, each on a node of its own.
struct Nodes {
    from: Node,
    to: Node,
    heard: Subscription,
}

struct Node {
    pubsub: PubSub,
    line: Box<dyn Line>,
}

/// What a message says.
type Number = u32;

impl Nodes {
    /// Starts them, and waits until one hears the other.
    async fn start<H: Harness>(world: &World<H>) -> Self {
        let (from, to) = (Node::start(world).await, Node::start(world).await);
        let heard = to.pubsub.subscribe(TOPIC);
        let mut nodes = Self { from, to, heard };
        loop {
            let Ok(position) = nodes.publish(Number::MAX).await else { continue };
            // The first ones may have come before the topic was heard.
            while let Ok(heard) = timeout(Duration::from_millis(200), nodes.hear()).await {
                if heard.0 == position {
                    return nodes;
                }
            }
        }
    }

    async fn publish(&self, number: Number) -> Result<Position, ()> {
        let payload = Payload::binary(number.to_be_bytes().to_vec());
        self.from.pubsub.publish(TOPIC, "number", payload).await.map_err(drop)
    }

    /// Publishes these numbers, and expects that they are kept.
    async fn keep(&self, numbers: std::ops::Range<Number>) -> Vec<(Position, Number)> {
        let mut kept = Vec::new();
        for number in numbers {
            kept.push((self.publish(number).await.expect("it is kept"), number));
        }
        kept
    }

    async fn hear(&mut self) -> (Position, Number) {
        read(&self.heard.recv().await.expect("there is room for all"))
    }

    /// What the other node receives next.
    async fn hear_next(&mut self) -> (Position, Number) {
        timeout(PATIENCE, self.hear()).await.expect("it is received")
    }

    /// Publishes before and while something is wrong with the line of the node that subscribes, and expects everything.
    async fn everything_is_received(&mut self, trouble: fn(&dyn Line), lasts: Duration) {
        let mut kept = self.keep(0..50).await;
        trouble(&*self.to.line);
        kept.extend(self.keep(50..75).await);
        sleep(lasts).await;
        kept.extend(self.keep(75..100).await);
        self.to.line.heal();
        for expected in kept {
            assert_eq!(self.hear_next().await, expected);
        }
    }
}

fn read(message: &Broadcast) -> (Position, Number) {
    let bytes = message.payload().as_binary().expect("binary");
    let number = Number::from_be_bytes((&bytes[..]).try_into().expect("a number"));
    (message.position().expect("it has one"), number)
}

impl Node {
    async fn start<H: Harness>(world: &World<H>) -> Self {
        let (adapter, line) = world.engine.connect(Settings::default()).await;
        let config = PubSubConfig::new().adapter(adapter).history("room:*", History::last(1000));
        Self { pubsub: PubSub::with_config(config).expect("an engine with histories"), line }
    }
}

pub async fn what_was_published_while_a_line_was_cut_is_received<H: Harness>(world: World<H>) {
    let mut nodes = Nodes::start(&world).await;
    nodes.everything_is_received(|line| line.cut(), Duration::from_millis(500)).await;
}

pub async fn what_was_published_while_a_line_stalled_is_received<H: Harness>(world: World<H>) {
    let mut nodes = Nodes::start(&world).await;
    nodes.everything_is_received(|line| line.stall(), Duration::from_millis(500)).await;
}

pub async fn what_was_published_over_a_line_that_was_given_up_is_received<H: Harness>(
    world: World<H>,
) {
    let mut nodes = Nodes::start(&world).await;
    nodes.everything_is_received(|line| line.stall(), Duration::from_secs(6)).await;
}

pub async fn what_is_published_over_a_line_that_is_cut_is_received_once<H: Harness>(
    world: World<H>,
) {
    let mut nodes = Nodes::start(&world).await;
    let mut kept = Vec::new();
    for number in 0..200 {
        if number % 50 == 20 {
            nodes.from.line.cut();
        }
        // What is not answered may have been kept all the same.
        let publish = timeout(Duration::from_millis(300), nodes.publish(number));
        if let Ok(Ok(position)) = publish.await {
            kept.push((position, number));
        }
        nodes.from.line.heal();
    }
    let last = loop {
        if let Ok(position) = nodes.publish(200).await {
            break (position, 200);
        }
    };
    kept.push(last);
    let mut received = vec![nodes.hear_next().await];
    while received.last() != Some(&last) {
        received.push(nodes.hear_next().await);
    }
    let page = nodes.to.pubsub.history(TOPIC, Since::Newest, received.len()).await;
    let page: Vec<_> = page.expect("it can be read").messages.iter().map(|it| read(it)).collect();
    assert_eq!(received, page, "everything that is kept, in its order");
    kept.retain(|it| !received.contains(it));
    assert_eq!(kept, [], "kept, and not received");
    let mut numbers: Vec<_> = received.iter().map(|(_, number)| number).collect();
    numbers.sort_unstable();
    // The last one is published again until it is answered.
    numbers.retain(|number| **number != 200);
    assert!(numbers.is_sorted_by(|one, next| one < next), "twice: {numbers:?}");
}
