//! Messages that channels send to themselves later, tested with in-memory clients and paused time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tower_channels::channel::{Error, Result};
use tower_channels::test::{Client, connect, connect_as};
use tower_channels::{
    Builder, Channel, Close, ConnectInfo, Endpoint, Joined, Payload, Rejected, Reply, Socket, Timer,
};

/// Counts how many of its clones exist.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Default)]
struct User {
    /// How many messages of timers exist.
    messages: Arc<AtomicUsize>,
    sockets: Arc<Mutex<Vec<Socket<Clock>>>>,
}

/// Pushes `tick` for each message, with its name and the milliseconds since the join.
struct Clock {
    joined_at: tokio::time::Instant,
    timers: Vec<Timer>,
    /// How long a message is handled.
    slowness: Duration,
}

impl Channel for Clock {
    type Assigns = User;
    type Info = (&'static str, Counted);

    async fn join(topic: &str, _: Payload, it: &Socket<Self>) -> Result<Joined<Self>> {
        it.assigns().sockets.lock().unwrap().push(it.clone());
        if topic == "refused" {
            let _ = it.send_after(SECOND, ("never", Counted::new(&it.assigns().messages)));
            return Err(Error::reason("refused"));
        }
        let joined_at = tokio::time::Instant::now();
        Ok(Self { joined_at, timers: Vec::new(), slowness: Duration::ZERO }.into())
    }

    async fn handle_in(&mut self, event: &str, msg: Payload, it: &Socket<Self>) -> Result<Reply> {
        let info = |name| (name, Counted::new(&it.assigns().messages));
        let millis = || msg.parse::<u64>().map(Duration::from_millis);
        match event {
            "after" => self.timers.push(it.send_after(millis()?, info("once"))),
            "every" => self.timers.push(it.send_every(millis()?, info("again"))),
            "after_for_ever" => self.timers.push(it.send_after(Duration::MAX, info("once"))),
            "every_for_ever" => self.timers.push(it.send_every(Duration::MAX, info("again"))),
            "be_slow" => self.slowness = millis()?,
            "nap" => tokio::time::sleep(millis()?).await,
            "nap_and_cancel" => {
                tokio::time::sleep(millis()?).await;
                self.timers.iter().for_each(Timer::cancel);
            }
            "cancel" => self.timers.iter().for_each(Timer::cancel),
            "drop" => self.timers.clear(),
            _ => return Err(format!("no such event: {event}").into()),
        }
        Ok(Reply::ack())
    }

    async fn handle_info(&mut self, (name, _): Self::Info, it: &Socket<Self>) -> Result<()> {
        let millis = self.joined_at.elapsed().as_millis() as u64;
        it.push("tick", json!([name, millis]));
        tokio::time::sleep(self.slowness).await;
        Ok(())
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn builder(user: &User) -> Builder<User> {
    let user = user.clone();
    let connect = move |_: ConnectInfo| {
        let user = user.clone();
        async move { Ok::<_, Rejected>(user) }
    };
    Endpoint::builder(connect).id(|_| Some("ann".into())).channel::<Clock>("*")
}

struct Setup {
    user: User,
    endpoint: Endpoint<User>,
    client: Client<User>,
}

async fn setup() -> Setup {
    let user = User::default();
    let endpoint = builder(&user).build();
    let mut client = connect_as(&endpoint, user.clone()).await;
    client.join("clock", json!({})).await;
    Setup { user, endpoint, client }
}

impl Setup {
    async fn push(&mut self, event: &str, payload: Value) {
        assert_eq!(self.client.push("clock", event, payload).await, Reply::ack());
    }

    /// The ticks that arrive in this time, in milliseconds since the join.
    async fn ticks(&mut self, time: Duration) -> Vec<u64> {
        tokio::time::sleep(time).await;
        self.client.send("clock", "be_slow", json!(0));
        let mut ticks = Vec::new();
        loop {
            let message = self.client.next_message().await;
            if message.event == "phx_reply" {
                return ticks;
            }
            let (_, millis) = message.payload.parse::<(String, u64)>().expect("a tick");
            ticks.push(millis);
        }
    }

    fn messages(&self) -> usize {
        self.user.messages.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_comes_once_after_the_delay() {
    let mut setup = setup().await;
    setup.push("after", json!(1500)).await;
    assert!(setup.ticks(SECOND).await.is_empty());
    assert_eq!(setup.ticks(SECOND).await, [1500]);
    assert!(setup.ticks(10 * SECOND).await.is_empty());
    assert_eq!(setup.messages(), 0, "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn a_repeated_message_comes_every_period() {
    let mut setup = setup().await;
    setup.push("every", json!(300)).await;
    assert_eq!(setup.ticks(SECOND).await, [300, 600, 900]);
    assert_eq!(setup.ticks(SECOND).await, [1200, 1500, 1800]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_channel_is_sent_no_more_than_it_handles() {
    let mut setup = setup().await;
    setup.push("every", json!(100)).await;
    setup.push("nap", json!(1050)).await;
    assert_eq!(setup.ticks(Duration::from_millis(200)).await, [1050, 1100, 1200]);
    setup.push("be_slow", json!(250)).await;
    let ticks = setup.ticks(SECOND).await;
    assert!((3..=6).contains(&ticks.len()), "{ticks:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_timer_sends_nothing_more_not_even_what_waits() {
    let mut setup = setup().await;
    setup.push("every", json!(100)).await;
    setup.push("after", json!(1000)).await;
    setup.push("nap_and_cancel", json!(1050)).await;
    assert!(setup.ticks(2 * SECOND).await.is_empty());
    assert_eq!(setup.messages(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_is_dropped_goes_on() {
    let mut setup = setup().await;
    setup.push("every", json!(400)).await;
    setup.push("drop", json!({})).await;
    assert_eq!(setup.ticks(SECOND).await, [400, 800]);
}

#[tokio::test(start_paused = true)]
async fn timers_end_with_their_channel_however_it_ends() {
    for end in ["phx_leave", "crash", "phx_join", "gone"] {
        let mut setup = setup().await;
        for (event, payload) in [
            ("after", json!(3_600_000)),
            ("every", json!(3_600_000)),
            ("every", json!(10)),
            ("every", json!(10)),
        ] {
            setup.push(event, payload).await;
        }
        assert!(setup.messages() >= 4);
        let Setup { user, client, .. } = &mut setup;
        match end {
            "gone" => client.drop_connection(),
            "phx_join" => assert_eq!(client.join("clock", json!({})).await, Reply::ack()),
            _ => drop(client.send("clock", end, json!({}))),
        }
        tokio::time::sleep(SECOND).await;
        assert_eq!(user.messages.load(Ordering::Relaxed), 0, "{end}");
        let socket = user.sockets.lock().unwrap().remove(0);
        let timer = socket.send_after(SECOND, ("late", Counted::new(&user.messages)));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(user.messages.load(Ordering::Relaxed), 0, "{end}: it has ended");
        timer.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn timers_of_a_join_that_fails_end_with_it() {
    let mut setup = setup().await;
    let reply = setup.client.join("refused", json!({})).await;
    assert_eq!(reply, Reply::reason("refused"));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(setup.messages(), 0);
}

#[tokio::test(start_paused = true)]
async fn timers_go_on_while_the_client_is_away() {
    let user = User::default();
    let endpoint = builder(&user).build();
    let session = [("session", "0123456789abcdefghijkl")];
    let mut client = connect(&endpoint, &session).await.unwrap();
    client.join("clock", json!({})).await;
    let mut setup = Setup { user, endpoint, client };
    setup.push("every", json!(400)).await;
    setup.client.drop_connection();
    tokio::time::sleep(SECOND).await;
    setup.client.reconnect().await.unwrap();
    setup.client.join("clock", json!({})).await;
    assert_eq!(setup.ticks(Duration::ZERO).await, [400, 800]);
    assert_eq!(setup.endpoint.subscriber_count("clock"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_refuses_no_timer() {
    let user = User::default();
    let endpoint = builder(&user).max_mailbox(2000).build();
    let mut client = connect_as(&endpoint, user.clone()).await;
    client.join("clock", json!({})).await;
    let handle = user.sockets.lock().unwrap()[0].handle();
    let mut setup = Setup { user, endpoint, client };
    setup.push("after", json!(1000)).await;
    setup.client.send("clock", "nap", json!(1500));
    tokio::time::sleep(SECOND / 2).await;
    while handle.send(("filler", Counted::new(&setup.user.messages))).is_ok() {}
    tokio::time::sleep(2 * SECOND).await;
    let mut names = Vec::new();
    while !names.iter().any(|name| name == "once") {
        let (event, tick) = setup.client.next_push().await;
        assert_eq!(event, "tick");
        names.push(tick.parse::<(String, u64)>().expect("a tick").0);
    }
    assert!(names.len() > 2, "{names:?}");
}

#[tokio::test(start_paused = true)]
async fn extreme_times_are_no_problem() {
    let mut setup = setup().await;
    setup.push("after_for_ever", json!({})).await;
    setup.push("every_for_ever", json!({})).await;
    setup.push("after", json!(0)).await;
    setup.push("every", json!(0)).await;
    let ticks = setup.ticks(Duration::from_millis(20)).await;
    assert!((10..=25).contains(&ticks.len()), "{ticks:?}");
    setup.push("cancel", json!({})).await;
    assert_eq!(setup.messages(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_cannot_fill_the_memory_with_timers() {
    let user = User::default();
    let endpoint = builder(&user).memory(1 << 20).build();
    let mut client = connect_as(&endpoint, user.clone()).await;
    client.join("clock", json!({})).await;
    for _ in 0..5000 {
        client.send("clock", "after_for_ever", json!({}));
        tokio::task::yield_now().await;
        client.discard();
    }
    assert_eq!(client.expect_closed().await, Close::Overflow);
    tokio::time::sleep(SECOND).await;
    assert_eq!(user.messages.load(Ordering::Relaxed), 0);
}
