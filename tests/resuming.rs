//! What the author of a channel may rely on when its client loses the connection and returns.

use std::time::Duration;

use serde_json::json;
use tower_channels::channel::Result;
use tower_channels::test::{Client, connect};
use tower_channels::{
    Builder, Channel, Close, Endpoint, JoinError, Joined, Payload, Reply, ResumeConfig, Socket,
};

/// Counts how often it was resumed.
struct Room(u32);

impl Channel for Room {
    type Assigns = String;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, JoinError> {
        Ok(Joined::new(Self(0)).reply(json!("joined")))
    }

    async fn resume(
        &mut self,
        payload: Payload,
        _: &Socket<Self>,
    ) -> Result<Option<Payload>, JoinError> {
        self.0 += 1;
        match payload.parse::<&str>() {
            Ok("unchanged") => Ok(None),
            Ok("panic") => panic!("asked to"),
            Ok("refuse") => Err(JoinError::reason("no longer")),
            _ => Ok(Some(json!({ "resumed": self.0 }).into())),
        }
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "crash" => {
                socket.push("crashing", json!({}));
                tokio::time::sleep(Duration::from_secs(1)).await;
                panic!("asked to");
            }
            "later" => {
                let answer = socket.reply_ref();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    answer.reply(Reply::Ok(payload));
                });
                Ok(Reply::None)
            }
            _ => Ok(Reply::Ok(payload)),
        }
    }
}

fn endpoint() -> Endpoint<String> {
    endpoint_with(ResumeConfig::default())
}

fn endpoint_with(continuity: ResumeConfig) -> Endpoint<String> {
    builder().resume(continuity).build()
}

fn builder() -> Builder<String> {
    Endpoint::builder(|info| async move { Ok(info.param("user").unwrap_or("ann").to_owned()) })
        .id(|user: &String| Some(user.clone()))
        .channel::<Room>("room:*")
}

const SESSION: (&str, &str) = ("session", "0123456789abcdefghijkl");
const NUMBERED: [(&str, &str); 2] = [SESSION, ("received", "0")];

async fn member(endpoint: &Endpoint<String>, params: &[(&str, &str)]) -> Client<String> {
    let mut ann = connect(endpoint, params).await.expect("connects");
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
    ann
}

fn resumed(times: u32) -> Reply {
    Reply::ok(json!({ "resumed": times }))
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_comes_once_and_in_order_after_the_answer_of_resume() {
    for params in [&NUMBERED[..1], &NUMBERED] {
        let endpoint = endpoint();
        let mut ann = member(&endpoint, params).await;
        let say = |n: u32| endpoint.broadcast("room:1", "said", json!(n));
        say(1);
        assert_eq!(ann.next_push().await, ("said".into(), json!(1).into()));
        // On its way when the connection is lost.
        say(2);
        ann.drop_connection();
        say(3);
        endpoint.broadcast("room:1", "said", Payload::binary(vec![4]));
        ann.reconnect().await.expect("connects");
        say(5);
        assert_eq!(ann.join("room:1", json!({})).await, resumed(1));
        for expected in
            [json!(2).into(), json!(3).into(), Payload::binary(vec![4]), json!(5).into()]
        {
            assert_eq!(ann.next_push().await, ("said".into(), expected));
        }
        ann.reconnect().await.expect("connects");
        assert_eq!(ann.join("room:1", json!({})).await, resumed(2));
        assert_eq!(ann.push("room:1", "ping", json!(6)).await, Reply::ok(json!(6)));
        assert_eq!(ann.discard(), 0, "nothing came twice");
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_before_the_connection_was_lost_stays_unread() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    endpoint.broadcast("room:1", "said", json!(1));
    ann.push("room:1", "ping", json!({})).await;
    ann.drop_connection();
    assert_eq!(ann.next_push().await, ("said".into(), json!(1).into()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_is_the_answer_of_its_push() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    let reference = ann.send("room:1", "later", json!("late"));
    ann.drop_connection();
    tokio::time::sleep(Duration::from_secs(2)).await;
    ann.reconnect().await.expect("connects");
    ann.join("room:1", json!({})).await;
    assert_eq!(ann.reply_to(&reference).await, Reply::ok(json!("late")));
}

#[tokio::test(start_paused = true)]
async fn broadcasts_and_answers_keep_their_order_while_nobody_is_there() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &NUMBERED).await;
    let say = |n: u32| endpoint.broadcast("room:1", "said", json!(n));
    for _ in 0..2 {
        let reference = ann.send("room:1", "later", json!("late"));
        ann.drop_connection();
        tokio::time::sleep(Duration::from_millis(500)).await;
        say(1);
        say(2);
        tokio::time::sleep(Duration::from_secs(1)).await;
        say(3);
        ann.reconnect().await.expect("connects");
        let joined = ann.send("room:1", "phx_join", json!("unchanged"));
        assert_eq!(ann.next_message().await.reference, Some(joined));
        for expected in ["said", "said", "phx_reply", "said"] {
            let message = ann.next_message().await;
            assert_eq!(message.event, expected);
            assert!(message.event != "phx_reply" || message.reference.as_ref() == Some(&reference));
        }
    }
    assert_eq!(ann.discard(), 0);
}

#[tokio::test(start_paused = true)]
async fn clients_that_are_away_at_different_times_each_get_what_they_missed() {
    let endpoint = endpoint();
    let say = |n: u32| endpoint.broadcast("room:1", "said", json!(n));
    let mut clients = Vec::new();
    for user in ["ann", "bob", "cid"] {
        let session = format!("0123456789abcdefghi{user}");
        let params = [("user", user), ("session", &session), ("received", "0")];
        clients.push(member(&endpoint, &params).await);
    }
    let rejoin_deadline = || tokio::time::sleep(Duration::from_millis(10));
    for (n, client) in (1..).zip(&mut clients) {
        client.drop_connection();
        rejoin_deadline().await;
        say(n);
    }
    for (n, client) in (4..).zip(&mut clients) {
        client.reconnect().await.expect("connects");
        client.join("room:1", json!({})).await;
        say(n);
    }
    for client in &mut clients {
        for n in 1..=6_u32 {
            assert_eq!(client.next_push().await, ("said".into(), json!(n).into()));
        }
        assert_eq!(client.discard(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_away_for_too_much_joins_anew() {
    let endpoint = builder().max_outbox(1000).build();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.drop_connection();
    tokio::time::sleep(Duration::from_millis(10)).await;
    for n in 0..100 {
        endpoint.broadcast("room:1", "said", json!(n));
    }
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
    assert_eq!(ann.discard(), 0);
}

#[tokio::test(start_paused = true)]
async fn resume_may_leave_the_first_answer_as_it_was() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!("unchanged")).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn after_a_resume_that_was_refused_a_join_is_the_first_again() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!("refuse")).await, Reply::reason("no longer"));
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn a_join_that_waits_for_a_channel_which_crashes_is_answered_and_the_next_is_the_first_again()
{
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.send("room:1", "crash", json!({}));
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!({})).await, Reply::reason("join crashed"));
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn a_join_whose_resume_panics_is_answered_and_the_next_is_the_first_again() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!("panic")).await, Reply::reason("join crashed"));
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn a_join_for_which_a_channel_has_no_room_is_answered_too() {
    let endpoint = builder().max_mailbox(1).build();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.send("room:1", "crash", json!({}));
    assert_eq!(ann.next_push().await.0, "crashing");
    // There is room for any one message, and one more.
    (0..2).for_each(|_| drop(ann.send("room:1", "ping", json!({}))));
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!({})).await, Reply::reason("join crashed"));
    // As phoenix.js does it tries again later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn within_its_time_a_session_is_kept_and_after_it_a_join_is_the_first_again() {
    for (away, kept) in [(55, true), (65, false)] {
        let endpoint = endpoint();
        let mut ann = member(&endpoint, &[SESSION]).await;
        ann.drop_connection();
        tokio::time::sleep(Duration::from_secs(away)).await;
        assert_eq!(endpoint.sessions().total(), usize::from(kept));
        ann.reconnect().await.expect("connects");
        let answer = if kept { resumed(1) } else { Reply::ok(json!("joined")) };
        assert_eq!(ann.join("room:1", json!({})).await, answer);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_session_a_client_that_returns_is_another_one() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[]).await;
    ann.reconnect().await.expect("connects");
    assert_eq!(endpoint.sessions().total(), 1);
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn the_newest_connection_of_a_session_closes_the_one_before() {
    let endpoint = endpoint();
    let mut older = member(&endpoint, &[SESSION]).await;
    let mut newer = connect(&endpoint, &[SESSION]).await.expect("connects");
    assert_eq!(older.closed().await, Close::Restart);
    assert_eq!(newer.join("room:1", json!({})).await, resumed(1));
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_ends_the_session_too() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    endpoint.disconnect("ann");
    assert_eq!(ann.closed().await, Close::GoingAway);
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_not_joined_again_in_time_ends() {
    let grace = Duration::from_secs(3);
    let endpoint = endpoint_with(ResumeConfig { rejoin_grace: grace, ..Default::default() });
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.reconnect().await.expect("connects");
    tokio::time::sleep(2 * grace).await;
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

/// Connects with a session of this id, and joins.
async fn tab(endpoint: &Endpoint<String>, user: &str, id: u32) -> Client<String> {
    let id = format!("{id:022}");
    let mut tab = connect(endpoint, &[("user", user), ("session", &id)]).await.expect("connects");
    assert_eq!(tab.join("room:1", json!({})).await, Reply::ok(json!("joined")));
    tab
}

/// Whether the tab's session is still there when it returns.
async fn returns(mut tab: Client<String>) -> bool {
    tab.reconnect().await.expect("connects");
    tab.join("room:1", json!({})).await == resumed(1)
}

fn two_tabs_each() -> Endpoint<String> {
    endpoint_with(ResumeConfig { max_per_id: 2, ..Default::default() })
}

#[tokio::test(start_paused = true)]
async fn one_session_too_many_of_a_user_ends_the_one_that_was_parked_for_longest() {
    let endpoint = two_tabs_each();
    let mut second = tab(&endpoint, "ann", 2).await;
    let mut first = tab(&endpoint, "ann", 1).await;
    let mut other = tab(&endpoint, "bob", 3).await;
    other.drop_connection();
    first.drop_connection();
    tokio::time::sleep(Duration::from_secs(5)).await;
    second.drop_connection();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let third = tab(&endpoint, "ann", 4).await;
    assert_eq!(endpoint.sessions().total(), 3);
    assert!(returns(second).await && returns(third).await && returns(other).await);
    assert!(!returns(first).await);
}

#[tokio::test(start_paused = true)]
async fn one_session_too_many_of_a_user_whose_tabs_are_all_open_is_not_kept() {
    let endpoint = two_tabs_each();
    let (first, second) = (tab(&endpoint, "ann", 1).await, tab(&endpoint, "ann", 2).await);
    let third = tab(&endpoint, "ann", 3).await;
    assert!(!returns(third).await);
    assert!(returns(first).await && returns(second).await);
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_no_longer_takes_a_users_place() {
    let endpoint = two_tabs_each();
    for round in 0..5 {
        let (one, two) =
            (tab(&endpoint, "ann", 2 * round).await, tab(&endpoint, "ann", 2 * round + 1).await);
        assert!(returns(one).await && returns(two).await, "round {round}");
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert_eq!(endpoint.sessions().total(), 0);
    }
}
