//! Which topics are heard.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::sleep;
use tower_channels::adapter::Link;

use super::node::{Heard, Node, eventually, numbered};
use super::{Harness, World};

const MS: Duration = Duration::from_millis(1);

/// Publishes a frame named like its topic on each of these.
fn publish_on(node: &Node, topics: &[String]) {
    for topic in topics {
        node.topic(topic, topic.clone());
    }
}

/// Whether at least one frame named like its topic was heard on each of these.
fn has_heard(heard: &Heard, topics: &[String]) -> bool {
    let frames: HashSet<&[u8]> = heard.frames.iter().map(|frame| &**frame).collect();
    topics.iter().all(|topic| frames.contains(topic.as_bytes()))
}

/// An engine may combine topics, and then a node hears some that it has not asked for.
pub async fn topics_that_nobody_listens_to_are_not_heard<H: Harness>(world: World<H>) {
    let [a, all, some] = world.nodes().await;
    some.hear_all(false).await;
    some.listen("room:1").await;
    let others = numbered("other:", 64);
    publish_on(&a, &others);
    all.until("all topics", |heard| has_heard(heard, &others)).await;
    most_are_not_heard(&a, &some, &others).await;
}

/// Waits until less than half of the topics are heard, if they are published on by one node, by another that listens
/// to `room:1`.
async fn most_are_not_heard(from: &Node, by: &Node, topics: &[String]) {
    let mut round = 0;
    eventually("topics not to be heard", async || {
        round += 1;
        let end = format!("end {round}");
        let count = || by.heard().frames.len();
        let before = count();
        publish_on(from, topics);
        from.topic("room:1", end.clone());
        by.hears(&end).await;
        count() - before <= topics.len() / 2
    })
    .await;
}

pub async fn a_frame_published_when_listen_has_resolved_is_heard<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    b.hear_all(false).await;
    let topics = numbered("one:", 100);
    for topic in &topics {
        b.listen(topic).await;
        a.topic(topic, topic.clone());
    }
    b.until("each topic", |heard| has_heard(heard, &topics)).await;

    let topics = numbered("many:", 100);
    // Each of them twice.
    let listens = topics.iter().chain(&topics).map(|topic| tokio::spawn(b.adapter.listen(topic)));
    for listen in listens.collect::<Vec<_>>() {
        listen.await.expect("no panic");
    }
    publish_on(&a, &topics);
    b.until("all topics", |heard| has_heard(heard, &topics)).await;
}

pub async fn a_topic_is_heard_although_nobody_awaits_it<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    b.hear_all(false).await;
    drop(b.adapter.listen("room:1"));
    eventually("the topic", async || {
        a.topic("room:1", "hello");
        sleep(MS).await;
        b.heard().count(b"hello") > 0
    })
    .await;
}

pub async fn topics_may_have_any_name<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    let mut topics: Vec<String> = [
        "*",
        "room:*",
        "?",
        "[a-z]",
        "\\",
        "room:\\*",
        "a b",
        " ",
        "a\nb",
        "a\r\nb",
        "a\tb",
        ">",
        "room.>",
        ".",
        "..",
        "a..b",
        ".a",
        "a.",
        "*.a",
        "$SYS.a",
        "_INBOX.a",
        "\0",
        "{a}",
        "a\"b",
        "ä:ö",
        "\u{1f600}",
        "\u{202e}",
    ]
    .map(str::to_owned)
    .to_vec();
    topics.push("x".repeat(255));
    publish_on(&a, &topics);
    b.until("all, without listening", |heard| has_heard(heard, &topics)).await;

    b.hear_all(false).await;
    for topic in &topics {
        b.listen(topic).await;
    }
    for topic in &topics {
        a.topic(topic, format!("again {topic}"));
    }
    let again: Vec<_> = topics.iter().map(|topic| format!("again {topic}")).collect();
    b.until("all, by listening", |heard| has_heard(heard, &again)).await;
}

pub async fn an_ignored_topic_is_not_heard_any_more<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    b.hear_all(false).await;
    b.listen("room:1").await;
    let topics = numbered("other:", 32);
    for topic in &topics {
        b.listen(topic).await;
    }
    publish_on(&a, &topics);
    b.until("each topic", |heard| has_heard(heard, &topics)).await;
    for topic in &topics {
        b.adapter.ignore(topic);
    }
    most_are_not_heard(&a, &b, &topics).await;
}

pub async fn a_topic_that_is_ignored_and_listened_to_in_turns_is_heard<H: Harness>(
    world: World<H>,
) {
    let [a, b] = world.nodes().await;
    b.hear_all(false).await;
    for round in 0..50 {
        b.listen("room:1").await;
        b.listen("room:2").await;
        b.adapter.ignore("room:2");
        if round % 5 == 1 {
            sleep(20 * MS).await;
        }
        let frame = format!("round {round}");
        a.topic("room:1", frame.clone());
        b.hears(&frame).await;
        b.adapter.ignore("room:1");
        if round % 5 == 3 {
            sleep(20 * MS).await;
        }
    }
}

pub async fn switching_between_all_and_topics_loses_nothing<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    let topics = numbered("room:", 5);
    for topic in &topics {
        b.listen(topic).await;
    }
    let frames = numbered("a", 2000);
    let publish = async {
        for (number, frame) in frames.iter().enumerate() {
            a.topic(&topics[number % topics.len()], frame.clone());
            if number % 20 == 0 {
                sleep(MS).await;
            }
        }
    };
    let switch = async {
        for round in 0..20 {
            b.hear_all(round % 2 == 1).await;
            sleep(3 * MS).await;
        }
    };
    tokio::join!(publish, switch);
    let is_told = |heard: &Heard| heard.links.len() > 1 && heard.links.last() == Some(&Link::Up);
    b.until("the last frame, or a gap", |heard| {
        has_heard(heard, &frames[1999..]) || is_told(heard)
    })
    .await;
    if is_told(&b.heard()) {
        // It changes its connection for this: a gap, but none in silence.
        a.topic(&topics[0], "end");
        return b.hears("end").await;
    }
    let heard = b.heard();
    let heard = heard.starting_with("a").into_iter();
    let mut numbers: Vec<usize> =
        heard.map(|frame| frame[1..].parse().expect("a number")).collect();
    // Some may be heard twice while the node hears in two ways.
    let mut seen = HashSet::new();
    numbers.retain(|number| seen.insert(*number));
    if !b.adapter.limits().is_ordered {
        numbers.sort_unstable();
    }
    for topic in 0..topics.len() {
        let of_topic = numbers.iter().copied().filter(|number| number % topics.len() == topic);
        assert!(of_topic.eq((topic..2000).step_by(topics.len())), "{numbers:?}");
    }
}

pub async fn listening_does_not_wait_for_an_engine_that_is_away<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    b.hear_all(false).await;
    b.lose_link().await;
    b.listen("room:1").await;
    b.regain_link().await;
    a.topic("room:1", "hello");
    b.hears("hello").await;
}

pub async fn topics_are_heard_again_after_a_reconnection<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    b.hear_all(false).await;
    let topics = numbered("room:", 1000);
    let listens = topics.iter().map(|topic| tokio::spawn(b.adapter.listen(topic)));
    for listen in listens.collect::<Vec<_>>() {
        listen.await.expect("no panic");
    }
    b.lose_link().await;
    b.regain_link().await;
    publish_on(&a, &topics);
    b.until("all topics", |heard| has_heard(heard, &topics)).await;
    assert_eq!(b.heard().links, [Link::Up, Link::Down, Link::Up]);
    assert_eq!(a.heard().links, [Link::Up]);
}
