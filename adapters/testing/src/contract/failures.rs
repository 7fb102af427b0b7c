//! What happens when the engine or the line to it fails.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use tower_channels::adapter::{Channel, Link, PublishError, Reached};

use super::node::{Heard, Node, eventually, numbered};
use super::{Harness, Settings, World};

const MS: Duration = Duration::from_millis(1);

/// Waits until each of these frames was heard by one node or lost by its sender.
async fn heard_or_lost(frames: &[String], heard_by: &Node, lost_by: &Node) {
    eventually("frames to be heard or lost", async || {
        fates(frames, heard_by, lost_by).all(|(_, heard, lost)| heard + lost > 0)
    })
    .await;
    at_most_once(frames, heard_by, lost_by);
}

/// Asserts that no frame was heard twice by one node, or lost twice by its sender.
fn at_most_once(frames: &[String], heard_by: &Node, lost_by: &Node) {
    for (frame, heard, lost) in fates(frames, heard_by, lost_by) {
        assert!(heard <= 1 && lost <= 1, "{frame}: heard {heard} times, lost {lost} times");
    }
}

/// How often each frame was heard by one node, and lost by another.
fn fates<'a>(
    frames: &'a [String],
    heard_by: &Node,
    lost_by: &Node,
) -> impl Iterator<Item = (&'a String, usize, usize)> + use<'a> {
    let heard = counts(&heard_by.heard().frames);
    let lost = counts(&lost_by.heard().lost);
    let count = |counts: &HashMap<Bytes, usize>, frame: &String| {
        counts.get(frame.as_bytes()).copied().unwrap_or_default()
    };
    frames.iter().map(move |frame| (frame, count(&heard, frame), count(&lost, frame)))
}

fn counts(frames: &[Bytes]) -> HashMap<Bytes, usize> {
    let mut counts = HashMap::new();
    for frame in frames {
        *counts.entry(frame.clone()).or_default() += 1;
    }
    counts
}

/// Publishes frames for as long as something else takes.
async fn publish_during(node: &Node, prefix: &str, other: impl Future<Output = ()>) -> Vec<String> {
    let mut frames = Vec::new();
    tokio::pin!(other);
    loop {
        for _ in 0..10 {
            frames.push(format!("{prefix}{}", frames.len()));
            node.all(frames.last().expect("one was added").clone());
        }
        tokio::select! {
            () = &mut other => return frames,
            () = sleep(MS) => {}
        }
    }
}

/// Reaches another node, which may take a moment more than to hear again.
async fn reaches(from: &Node, to: &Node, frame: &str) {
    let is_reached = async || from.reach(to.id, frame.to_owned()).await == Reached::Someone;
    eventually("the other node to be reached", is_reached).await;
    to.hears(frame).await;
}

pub async fn a_restarted_engine_is_heard_again<H: Harness>(mut world: World<H>) {
    let [a, b] = world.nodes().await;
    b.hear_all(false).await;
    b.listen("room:1").await;
    for round in 1..=2 {
        world.engine.kill().await;
        let told = [Link::Up, Link::Down].repeat(round);
        a.is_told(&told).await;
        b.is_told(&told).await;
        world.engine.restart().await;
        let told = [&told[..], &[Link::Up]].concat();
        a.is_told(&told).await;
        b.is_told(&told).await;
        let frame = format!("round {round}");
        a.all(frame.clone());
        a.topic("room:1", frame.clone());
        let both = |heard: &Heard| heard.count(frame.as_bytes()) == 2;
        b.until(&frame, both).await;
        a.until(&frame, both).await;
        reaches(&b, &a, &format!("back {round}")).await;
    }
}

pub async fn frames_that_waited_for_the_engine_are_heard_or_lost<H: Harness>(mut world: World<H>) {
    let [a, b] = world.nodes().await;
    world.engine.kill().await;
    a.is_told(&[Link::Up, Link::Down]).await;
    b.is_told(&[Link::Up, Link::Down]).await;
    let frames = numbered("a", 100);
    for frame in &frames {
        a.all(frame.clone());
    }
    // So that nothing is sent before the other node hears it.
    a.line.cut();
    world.engine.restart().await;
    b.is_told(&[Link::Up, Link::Down, Link::Up]).await;
    a.line.heal();
    a.is_told(&[Link::Up, Link::Down, Link::Up]).await;
    heard_or_lost(&frames, &b, &a).await;
    a.all("end");
    b.hears("end").await;
    for (frame, heard, lost) in fates(&frames, &b, &a) {
        assert_eq!(heard + lost, 1, "{frame}: heard {heard} times, lost {lost} times");
    }
}

pub async fn frames_published_as_the_engine_dies_arrive_at_most_once<H: Harness>(
    mut world: World<H>,
) {
    let [a, b] = world.nodes().await;
    let told = [Link::Up, Link::Down, Link::Up];
    let frames = publish_during(&a, "a", async {
        sleep(20 * MS).await;
        world.engine.kill().await;
        a.is_told(&told[..2]).await;
        b.is_told(&told[..2]).await;
        sleep(20 * MS).await;
        world.engine.restart().await;
        a.is_told(&told).await;
        b.is_told(&told).await;
    })
    .await;
    a.all("end");
    b.hears("end").await;
    a.hears("end").await;
    for node in [&a, &b] {
        at_most_once(&frames, node, &a);
        assert_eq!(node.heard().links, told);
    }
}

pub async fn a_cut_line_loses_no_frame_in_silence<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    for round in 0..3 {
        let frames = publish_during(&a, &format!("{round}:"), async {
            sleep(20 * MS).await;
            a.lose_link().await;
            sleep(20 * MS).await;
            a.regain_link().await;
            sleep(20 * MS).await;
        })
        .await;
        heard_or_lost(&frames, &b, &a).await;
    }
    assert_eq!(b.heard().links, [Link::Up]);
    assert_eq!(a.heard().links, [Link::Up, Link::Down].repeat(4)[..7]);
}

pub async fn a_stalled_line_is_given_up_by_reconnect<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    a.line.stall();
    let frames = numbered("stalled ", 10);
    for frame in &frames {
        a.all(frame.clone());
    }
    b.all("not heard by a");
    b.hears("not heard by a").await;
    a.adapter.reconnect();
    a.until("Down", |heard| heard.links.contains(&Link::Down)).await;
    a.regain_link().await;
    heard_or_lost(&frames, &b, &a).await;
    a.all("from a");
    b.all("from b");
    for node in [&a, &b] {
        node.hears("from a").await;
        node.hears("from b").await;
    }
    assert_eq!(b.heard().links, [Link::Up]);
}

pub async fn nothing_hangs_on_a_stalled_line<H: Harness>(world: World<H>) {
    let b = world.node().await;
    let a = world.node_with(Settings { max_age: 500 * MS, ..Settings::default() }).await;
    a.line.stall();
    let frames = numbered("stalled ", 10);
    for frame in &frames {
        a.all(frame.clone());
    }
    assert_eq!(a.reach(b.id, "stalled").await, Reached::Unknown);
    a.flush().await;
    a.listen("room:1").await;
    a.line.heal();
    heard_or_lost(&frames, &b, &a).await;
}

pub async fn reach_does_not_know_while_the_engine_is_away<H: Harness>(mut world: World<H>) {
    let [a, b] = world.nodes().await;
    a.lose_link().await;
    assert_eq!(a.reach(b.id, "hello").await, Reached::Unknown);
    a.regain_link().await;
    reaches(&a, &b, "hello").await;
    world.engine.kill().await;
    a.until("Down", |heard| heard.links.len() == 4).await;
    assert_eq!(a.reach(b.id, "hello").await, Reached::Unknown);
}

pub async fn frames_that_have_waited_for_too_long_are_lost<H: Harness>(world: World<H>) {
    let b = world.node().await;
    let a = world.node_with(Settings { max_age: 300 * MS, ..Settings::default() }).await;
    a.lose_link().await;
    let frames = numbered("old ", 10);
    for frame in &frames {
        a.all(frame.clone());
    }
    a.flush().await;
    a.until("all to be lost", |heard| heard.lost == frames).await;
    a.regain_link().await;
    a.all("end");
    b.hears("end").await;
    assert!(b.heard().starting_with("old").is_empty());
    assert_eq!(a.heard().lost, frames);
}

pub async fn what_waits_is_bounded_in_bytes<H: Harness>(world: World<H>) {
    let b = world.node().await;
    let a = world.node_with(Settings { max_waiting: 256 * 1024, ..Settings::default() }).await;
    a.lose_link().await;
    let frame = |number: usize| Bytes::from(format!("{number:016384}"));
    let taken = (0..1000).take_while(|number| a.publish(Channel::All, frame(*number)).is_ok());
    let taken = taken.count();
    assert!((8..=17).contains(&taken), "{taken} frames of 16 KiB wait in 256 KiB");
    assert_eq!(a.publish(Channel::Topic("room:1"), frame(0)), Err(PublishError::Overflow));
    a.regain_link().await;
    let frames: Vec<_> = (0..taken).map(|number| format!("{number:016384}")).collect();
    heard_or_lost(&frames, &b, &a).await;
    a.flush().await;
    a.all("end");
    b.hears("end").await;
    assert_eq!(b.heard().count(&frame(taken)), 0);
    assert_eq!(a.heard().count_lost(&frame(taken)), 0);
}
