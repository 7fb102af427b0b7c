use std::collections::VecDeque;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use serde_json::Value;
use tower_channels_transports::{DetachReason, Transport, outbox};

use super::super::context::TopicSubscription;
use super::super::error::Result;
use super::super::resources::Resources;
use super::super::result::Joined;
use super::*;
use crate::presence::Presence;
use crate::presence::tracked::Ownership;
use crate::pubsub::PubSub;
use crate::responder::{Positions, Responder};
use crate::serializer::Version;
use crate::socket_info::SocketInfo;
use crate::telemetry::ChannelMetrics;

/// A channel whose client follows the presence of the topic.
struct Follower;

impl Channel for Follower {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        Presence::push_state(socket);
        Ok(())
    }

    async fn handle_broadcast(
        &mut self,
        _: &str,
        event: &str,
        _: Payload,
        it: &Socket<Self>,
    ) -> Result<()> {
        if event == "pushed" {
            it.push("heard", Payload::EMPTY);
        }
        Ok(())
    }

    async fn handle_in(&mut self, event: &str, _: Payload, it: &Socket<Self>) -> Result<Reply> {
        if event == "subscribe" {
            it.subscribe("news")?;
        }
        Ok(Reply::ok(Payload::json(&event)?))
    }
}

/// A running channel without a socket.
struct Running {
    mailbox: mailbox::Owner,
    pubsub: PubSub,
    receiver: outbox::Receiver,
    task: JoinHandle<()>,
    metrics: Arc<ChannelMetrics>,
}

impl Running {
    async fn join() -> Self {
        let (outbox, receiver) = outbox::channel(1000);
        let (mailbox, commands) = mailbox::channel(1000, None);
        let pubsub = PubSub::new();
        let metrics = Arc::<ChannelMetrics>::default();
        let join_ref = Ref::from_json("1").expect("a ref");
        let context = ChannelContext {
            assigns: Arc::new(Guarded::new(())),
            info: Arc::new(SocketInfo::new(None, Transport::InMemory)),
            topic: "room".into(),
            join_ref: join_ref.clone(),
            client: Responder {
                outbox,
                version: Version::V2,
                resumable: false,
                positions: Positions::Unwanted,
            },
            pubsub: pubsub.clone(),
            ownership: Ownership::default(),
            mailbox: commands.sender(),
            subscription: TopicSubscription::default(),
            metrics: Arc::clone(&metrics),
            resources: Resources::default(),
            arrival: OnceLock::new(),
            remembered: None,
        };
        let task = start::<Follower>(Join {
            context,
            commands,
            sent_join_ref: join_ref.clone(),
            reference: join_ref,
            payload: Payload::EMPTY,
            after: None,
            timeout: Duration::from_secs(10),
            epoch: 0,
            permit: TopicPermit::default(),
            previous: None,
            continued: None,
            span: Span::none(),
        });
        Self { mailbox, pubsub, receiver, task, metrics }
    }

    fn send(&self, command: Command) {
        self.mailbox.send(command).expect("the channel is alive");
    }

    fn broadcast(&self, event: &str) {
        self.pubsub.broadcast("room", event, Payload::EMPTY);
    }

    /// The events that its client receives within a second.
    async fn events(&mut self) -> Vec<String> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut batch = VecDeque::new();
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(close)) = self.receiver.poll_take(&mut cx, &mut batch) {
            panic!("closed: {close:?}");
        }
        let event = |text: &[u8]| {
            let message: [Value; 5] = serde_json::from_slice(text).expect("a message of 2.0.0");
            message[3].as_str().expect("an event").to_owned()
        };
        batch.iter().map(|message| event(&message.to_bytes())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_reattached_channel_catches_up_and_sends_the_presence_state_again() {
    let mut channel = Running::join().await;
    assert_eq!(channel.events().await, ["phx_reply", "presence_state"]);
    channel.send(Command::Detached(DetachReason::Lost));
    assert!(channel.events().await.is_empty());
    channel.broadcast("while_away");
    assert!(channel.events().await.is_empty());
    channel.send(Command::Reattached);
    assert_eq!(channel.events().await, ["while_away", "presence_state"]);
    channel.broadcast("back");
    assert_eq!(channel.events().await, ["back"]);
}

#[tokio::test(start_paused = true)]
async fn a_dormant_channel_catches_up_before_it_sends() {
    let mut channel = Running::join().await;
    channel.send(Command::Detached(DetachReason::Lost));
    channel.events().await;
    channel.broadcast("while_away");
    let reference = Ref::from_json("2").expect("a ref");
    channel.send(Command::Push { reference, event: "ping".into(), payload: Payload::EMPTY });
    assert_eq!(channel.events().await, ["while_away", "phx_reply"]);
}

#[tokio::test(start_paused = true)]
async fn a_dormant_channel_hears_other_topics_and_its_own_stays_dormant_until_it_sends() {
    let mut channel = Running::join().await;
    let reference = Ref::from_json("2").expect("a ref");
    channel.send(Command::Push { reference, event: "subscribe".into(), payload: Payload::EMPTY });
    channel.events().await;
    channel.send(Command::Detached(DetachReason::Lost));
    channel.events().await;
    channel.broadcast("while_away");
    channel.pubsub.broadcast("news", "ignored", Payload::EMPTY);
    assert!(channel.events().await.is_empty());
    channel.pubsub.broadcast("news", "pushed", Payload::EMPTY);
    assert_eq!(channel.events().await, ["while_away", "heard"]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_whose_replacement_failed_notifies_its_client_of_its_end_itself() {
    let mut channel = Running::join().await;
    channel.events().await;
    assert!(channel.mailbox.replace() && channel.mailbox.abandon());
    assert!(channel.events().await.is_empty(), "it has not ended");
    channel.task.abort();
    assert_eq!(channel.events().await, ["phx_close"]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_is_counted_until_nothing_of_it_is_left() {
    let Running { mailbox, receiver, task, metrics, .. } = Running::join().await;
    assert_eq!(metrics.running(), 1);
    drop((mailbox, receiver));
    assert_eq!(metrics.running(), 1, "it handles what its client has sent");
    task.await.expect("no panic");
    assert_eq!(metrics.running(), 0);
}
