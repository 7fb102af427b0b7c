//! Guarantees to the author of a channel whose client loses its connection and returns.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use serde_json::json;
use tower::ServiceExt;
use tower_channels::channel::{Error, Result};
use tower_channels::test::{Client, connect};
use tower_channels::{
    Builder, Channel, Close, Endpoint, Joined, Payload, Reply, ResumeConfig, Socket,
};

/// A channel that counts how often it was resumed.
struct Room(u32);

impl Channel for Room {
    type Assigns = String;
    type Info = ();

    async fn join(_: &str, payload: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        if payload.parse::<String>().is_ok_and(|payload| payload == "refuse") {
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Err(Error::reason("refused"));
        }
        Ok(Joined::new(Self(0)).reply(json!("joined")))
    }

    async fn resume(&mut self, payload: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
        self.0 += 1;
        match payload.parse::<String>().as_deref() {
            Ok("unchanged") => Ok(None),
            Ok("panic") => panic!("requested"),
            Ok("reject") => Err(Error::reason("no longer")),
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
                panic!("requested");
            }
            "later" => {
                let reply_ref = socket.reply_ref();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    reply_ref.reply(Reply::Ok(payload));
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

fn endpoint_with(config: ResumeConfig) -> Endpoint<String> {
    builder().resume(config).build()
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
async fn missed_messages_follow_the_reply_to_the_rejoin_once_and_in_order() {
    for params in [&NUMBERED[..1], &NUMBERED] {
        let endpoint = endpoint();
        let mut ann = member(&endpoint, params).await;
        let say = |n: u32| endpoint.broadcast("room:1", "said", json!(n));
        say(1);
        assert_eq!(ann.next_push().await, ("said".into(), json!(1).into()));
        // In flight when the connection is lost.
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
        assert_eq!(ann.discard(), 0, "no duplicates");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_received_before_a_connection_loss_can_still_be_read() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    endpoint.broadcast("room:1", "said", json!(1));
    ann.push("room:1", "ping", json!({})).await;
    ann.drop_connection();
    assert_eq!(ann.next_push().await, ("said".into(), json!(1).into()));
}

#[tokio::test(start_paused = true)]
async fn a_reply_sent_while_the_client_was_away_still_resolves_its_push() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    let reference = ann.send("room:1", "later", json!("late"));
    ann.drop_connection();
    tokio::time::sleep(Duration::from_secs(2)).await;
    ann.reconnect().await.expect("connects");
    ann.join("room:1", json!({})).await;
    assert_eq!(ann.expect_reply(&reference).await, Reply::ok(json!("late")));
}

#[tokio::test(start_paused = true)]
async fn broadcasts_and_replies_keep_their_order_while_the_client_is_away() {
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
    let become_dormant = || tokio::time::sleep(Duration::from_millis(10));
    for (n, client) in (1..).zip(&mut clients) {
        client.drop_connection();
        become_dormant().await;
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
async fn a_client_that_missed_too_much_joins_anew() {
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
async fn resume_can_repeat_the_response_of_the_join() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!("unchanged")).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn after_a_rejected_resume_the_next_join_is_a_new_one() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!("reject")).await, Reply::reason("no longer"));
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn every_rejoin_runs_resume_with_its_own_payload() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    assert_eq!(ann.join("room:1", json!("unchanged")).await, Reply::ok(json!("joined")));
    assert_eq!(ann.join("room:1", json!({})).await, resumed(2));
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!({})).await, resumed(3));
    assert_eq!(ann.join("room:1", json!("reject")).await, Reply::reason("no longer"));
    assert_eq!(ann.push("room:1", "ping", json!(1)).await, Reply::reason("unmatched topic"));
}

#[tokio::test(start_paused = true)]
async fn a_join_behind_a_rejected_one_is_an_ordinary_join() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    let rejected = ann.send("room:1", "phx_join", json!("reject"));
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
    assert_eq!(ann.expect_reply(&rejected).await, Reply::reason("no longer"));
}

#[tokio::test(start_paused = true)]
async fn a_join_behind_one_that_fails_is_an_ordinary_join() {
    let endpoint = endpoint();
    let mut ann = connect(&endpoint, &[SESSION]).await.expect("connects");
    let refused = ann.send("room:1", "phx_join", json!("refuse"));
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
    assert_eq!(ann.expect_reply(&refused).await, Reply::reason("refused"));
    assert_eq!(ann.push("room:1", "ping", json!(1)).await, Reply::ok(json!(1)));
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_channel_that_was_left_reaches_the_one_that_is_joined_behind() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.send("room:1", "later", json!("late"));
    ann.send("room:1", "phx_leave", json!({}));
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
    assert_eq!(ann.discard(), 2, "the reply to the leave and the close");
    tokio::time::sleep(Duration::from_secs(2)).await;
    endpoint.broadcast("room:1", "said", json!(1));
    assert_eq!(ann.next_push().await, ("said".into(), json!(1).into()));
    assert_eq!(ann.discard(), 0);
}

/// What the client does before it leaves, and whether it could have waited in vain for the reply to
/// its join.
#[tokio::test(start_paused = true)]
async fn a_leave_ends_the_channel_unless_its_join_was_not_answered() {
    let seconds = |n| tokio::time::sleep(Duration::from_secs(n));
    for received in [&NUMBERED[..1], &NUMBERED] {
        for (case, detaches) in [
            ("at once", false),
            ("unanswered", true),
            ("on a line that acknowledges nothing", false),
            ("on a line that acknowledges others", true),
            ("answered", false),
            ("answered before", false),
        ] {
            let endpoint = endpoint();
            let mut ann = member(&endpoint, received).await;
            ann.reconnect().await.expect("connects");
            match case {
                "at once" => drop(ann.send("room:1", "phx_join", json!({}))),
                "unanswered" => {
                    ann.send("room:1", "phx_join", json!({}));
                    seconds(6).await;
                }
                "on a line that acknowledges nothing" => {
                    ann.send("room:1", "phx_join", json!({}));
                    seconds(4).await;
                }
                "on a line that acknowledges others" => {
                    ann.push("room:2", "ping", json!({})).await;
                    ann.send("room:1", "phx_join", json!({}));
                    seconds(2).await;
                }
                "answered" => {
                    ann.join("room:1", json!({})).await;
                    seconds(2).await;
                }
                _ => seconds(2).await,
            }
            ann.send("room:1", "phx_leave", json!({}));
            ann.discard();
            seconds(1).await;
            let reply = ann.join("room:1", json!({})).await;
            let expected = if detaches { resumed(2) } else { Reply::ok(json!("joined")) };
            assert_eq!(reply, expected, "left {case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejoin_of_a_channel_that_crashes_is_answered_and_the_next_join_is_a_new_one() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.send("room:1", "crash", json!({}));
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!({})).await, Reply::reason("join crashed"));
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn a_rejoin_whose_resume_panics_is_answered_and_the_next_join_is_a_new_one() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!("panic")).await, Reply::reason("join crashed"));
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn a_rejoin_that_does_not_fit_into_the_mailbox_is_answered() {
    let endpoint = builder().max_mailbox(1).build();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.send("room:1", "crash", json!({}));
    assert_eq!(ann.next_push().await.0, "crashing");
    // An empty mailbox takes a message of any size, so it is full only with two.
    (0..2).for_each(|_| drop(ann.send("room:1", "ping", json!({}))));
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!({})).await, Reply::reason("join crashed"));
    // The client tries again later, as phoenix.js does.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn a_session_can_be_resumed_until_its_ttl_expires() {
    for (away, resumable) in [(55, true), (65, false)] {
        let endpoint = endpoint();
        let mut ann = member(&endpoint, &[SESSION]).await;
        ann.drop_connection();
        tokio::time::sleep(Duration::from_secs(away)).await;
        assert_eq!(endpoint.sessions().total(), usize::from(resumable));
        ann.reconnect().await.expect("connects");
        let reply = if resumable { resumed(1) } else { Reply::ok(json!("joined")) };
        assert_eq!(ann.join("room:1", json!({})).await, reply);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_session_id_a_returning_client_is_a_new_one() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[]).await;
    ann.reconnect().await.expect("connects");
    assert_eq!(endpoint.sessions().total(), 1);
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn the_newest_connection_of_a_session_closes_the_previous_one() {
    let endpoint = endpoint();
    let mut older = member(&endpoint, &[SESSION]).await;
    let mut newer = connect(&endpoint, &[SESSION]).await.expect("connects");
    assert_eq!(older.expect_closed().await, Close::Restart);
    assert_eq!(newer.join("room:1", json!({})).await, resumed(1));
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_ends_the_session() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    endpoint.disconnect("ann");
    assert_eq!(ann.expect_closed().await, Close::GoingAway);
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_not_rejoined_in_time_ends() {
    let grace = Duration::from_secs(3);
    let endpoint = endpoint_with(ResumeConfig::new().rejoin_grace(grace));
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.reconnect().await.expect("connects");
    tokio::time::sleep(2 * grace).await;
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}

/// Connects with the given session id, and joins.
async fn tab(endpoint: &Endpoint<String>, user: &str, id: u32) -> Client<String> {
    let id = format!("{id:022}");
    let mut tab = connect(endpoint, &[("user", user), ("session", &id)]).await.expect("connects");
    assert_eq!(tab.join("room:1", json!({})).await, Reply::ok(json!("joined")));
    tab
}

/// Reconnects, and returns whether the session was resumed.
async fn resumes(mut tab: Client<String>) -> bool {
    tab.reconnect().await.expect("connects");
    tab.join("room:1", json!({})).await == resumed(1)
}

fn two_sessions_per_user() -> Endpoint<String> {
    endpoint_with(ResumeConfig::new().max_per_id(2))
}

#[tokio::test(start_paused = true)]
async fn a_session_over_the_limit_of_a_user_ends_the_one_detached_for_longest() {
    let endpoint = two_sessions_per_user();
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
    assert!(resumes(second).await && resumes(third).await && resumes(other).await);
    assert!(!resumes(first).await);
}

#[tokio::test(start_paused = true)]
async fn a_session_over_the_limit_of_a_user_is_not_resumable_if_none_is_detached() {
    let endpoint = two_sessions_per_user();
    let (first, second) = (tab(&endpoint, "ann", 1).await, tab(&endpoint, "ann", 2).await);
    let third = tab(&endpoint, "ann", 3).await;
    assert!(!resumes(third).await);
    assert!(resumes(first).await && resumes(second).await);
}

#[tokio::test(start_paused = true)]
async fn ended_sessions_do_not_count_towards_the_limit_of_a_user() {
    let endpoint = two_sessions_per_user();
    for round in 0..5 {
        let (one, two) =
            (tab(&endpoint, "ann", 2 * round).await, tab(&endpoint, "ann", 2 * round + 1).await);
        assert!(resumes(one).await && resumes(two).await, "round {round}");
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert_eq!(endpoint.sessions().total(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn naming_the_session_of_another_client_does_not_bypass_max_sessions() {
    let endpoint = builder().max_sessions(50).build();
    let _ann = member(&endpoint, &[SESSION]).await;
    let mut others = Vec::new();
    for n in 0..450 {
        others.extend(connect(&endpoint, &[SESSION, ("user", &format!("user-{n}"))]).await);
    }
    assert_eq!((others.len(), endpoint.sessions().total()), (49, 50));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_missed_too_much_needs_a_place_that_its_old_session_still_has() {
    let endpoint = builder().max_sessions(1).max_outbox(1000).build();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.drop_connection();
    (0..100).for_each(|n| endpoint.broadcast("room:1", "said", json!(n)));
    while endpoint.sessions().total() > 0 {
        assert!(ann.reconnect().await.is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    ann.reconnect().await.expect("connects");
}

/// Sends a GET without any header, as an `<img>` on another site may.
async fn get(endpoint: &Endpoint<String>, path: &str, id: u32) -> String {
    let uri = format!("/socket/{path}?vsn=2.0.0&session={id:022}");
    let request = http::Request::get(uri).body(Full::<bytes::Bytes>::default());
    let Ok(response) = endpoint.service().oneshot(request.expect("a request")).await;
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

#[tokio::test(start_paused = true)]
async fn a_get_that_is_no_handshake_leaves_no_session_behind() {
    let endpoint = endpoint();
    assert_eq!(get(&endpoint, "websocket", 1).await, "'host' header is absent");
    assert_eq!(endpoint.sessions().total(), 0);
}

#[tokio::test(start_paused = true)]
async fn connects_that_are_not_used_push_out_no_detached_session() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.drop_connection();
    for id in 0..40 {
        get(&endpoint, "websocket", id).await;
        assert!(get(&endpoint, "longpoll", 100 + id).await.contains(r#""status":410"#));
    }
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!({})).await, resumed(1));
    // Those of long polling end with their tokens.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(endpoint.sessions().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ends_its_session_is_gone_for_good() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, &[SESSION]).await;
    ann.send("phoenix", "end_session", json!({}));
    assert_eq!(endpoint.sessions().total(), 0);
    ann.reconnect().await.expect("connects");
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ok(json!("joined")));
}
