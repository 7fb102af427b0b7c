//! Moving from one connection of a session to the next.

use super::{Handover, new_msg, witness};
use crate::support::Client;
use crate::support::connection::ok;

handovers![
    a_rejoin_of_a_live_channel_repeats_the_response_of_the_join,
    broadcasts_follow_the_rejoin_in_order_and_do_not_precede_it,
    each_topic_waits_for_its_own_rejoin,
    a_channel_keeps_its_state,
    a_late_reply_resolves_its_push,
    unread_messages_are_sent_again,
    acknowledged_messages_are_not_sent_again,
    an_intercepted_broadcast_is_handled_while_the_client_is_away,
    two_joins_in_a_row_are_harmless,
    after_a_crash_the_next_join_starts_a_new_channel,
    repeated_reconnects_lose_nothing,
    a_disconnect_by_id_ends_a_detached_session,
    a_session_that_exceeds_the_outbox_limit_starts_anew,
    another_user_cannot_access_the_session,
];

async fn a_rejoin_of_a_live_channel_repeats_the_response_of_the_join(handover: Handover) {
    let reply = |reference| {
        format!(
            r#"[null,"{reference}","room:a","phx_reply",{{"status":"ok","response":{{"echo":[5]}}}}]"#
        )
    };
    let mut conn = handover.first().await;
    conn.send(r#"["1","1","room:a","phx_join",{"echo":[5]}]"#).await;
    conn.expect(&reply(1)).await;
    conn.expect(r#"[null,null,"room:a","joined",{"user_id":"u1"}]"#).await;
    conn.acknowledge_all().await;
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.begin_join("7", "room:a").await;
    conn.expect(&reply(7)).await;
    conn.ping("7", "room:a").await;
}

async fn broadcasts_follow_the_rejoin_in_order_and_do_not_precede_it(handover: Handover) {
    let received = handover.member().await.cut().await;
    for number in 1..=5 {
        handover.broadcast("room:a", number).await;
    }
    let mut conn = handover.reconnect(received).await;
    conn.heartbeat().await;
    handover.broadcast("room:a", 6).await;
    conn.heartbeat().await;
    conn.rejoin("7", "room:a").await;
    for number in 1..=6 {
        conn.expect(&new_msg("room:a", number)).await;
    }
    handover.broadcast("room:a", 7).await;
    conn.expect(&new_msg("room:a", 7)).await;
    conn.ping("7", "room:a").await;
}

async fn each_topic_waits_for_its_own_rejoin(handover: Handover) {
    let mut conn = handover.first().await;
    conn.join("1", "room:a").await;
    conn.join("2", "room:b").await;
    conn.acknowledge_all().await;
    let received = conn.cut().await;
    for number in [1, 2] {
        handover.broadcast("room:a", number).await;
        handover.broadcast("room:b", number).await;
    }
    let mut conn = handover.reconnect(received).await;
    conn.rejoin("7", "room:b").await;
    conn.expect(&new_msg("room:b", 1)).await;
    conn.expect(&new_msg("room:b", 2)).await;
    conn.ping("7", "room:b").await;
    handover.broadcast("room:a", 3).await;
    conn.heartbeat().await;
    conn.rejoin("8", "room:a").await;
    for number in [1, 2, 3] {
        conn.expect(&new_msg("room:a", number)).await;
    }
    conn.ping("8", "room:a").await;
}

async fn a_channel_keeps_its_state(handover: Handover) {
    let mut conn = handover.member().await;
    conn.send(r#"["1","2","room:a","assign",{"k":"k","v":[1]}]"#).await;
    conn.expect(&ok("2", "room:a")).await;
    handover.acknowledge_all(&mut conn).await;
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.rejoin("7", "room:a").await;
    conn.send(r#"["7","8","room:a","fetch",{"k":"k"}]"#).await;
    conn.expect(r#"[null,"8","room:a","phx_reply",{"status":"ok","response":{"v":[1]}}]"#).await;
}

async fn a_late_reply_resolves_its_push(handover: Handover) {
    let mut conn = handover.member().await;
    conn.send(r#"["1","2","room:a","slow",{"ms":700}]"#).await;
    conn.ping("1", "room:a").await;
    handover.acknowledge_all(&mut conn).await;
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.rejoin("7", "room:a").await;
    conn.expect(r#"[null,"2","room:a","phx_reply",{"status":"ok","response":{"ms":700}}]"#).await;
    conn.ping("7", "room:a").await;
}

async fn unread_messages_are_sent_again(handover: Handover) {
    let mut witness = witness(&handover.server, "room:a").await;
    let mut conn = handover.member().await;
    conn.send_all(&[
        r#"["1","2","room:a","ping",{}]"#,
        r#"["1",null,"room:a","push_me",{"n":0}]"#,
        r#"["1",null,"room:a","new_msg",{"n":1}]"#,
    ])
    .await;
    witness.expect(&new_msg("room:a", 1)).await;
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.rejoin("7", "room:a").await;
    conn.expect(&ok("2", "room:a")).await;
    conn.expect(r#"[null,null,"room:a","pushed",{"n":0}]"#).await;
    conn.expect(&new_msg("room:a", 1)).await;
    conn.ping("7", "room:a").await;
}

async fn acknowledged_messages_are_not_sent_again(handover: Handover) {
    let mut conn = handover.member().await;
    handover.broadcast("room:a", 1).await;
    conn.expect(&new_msg("room:a", 1)).await;
    conn.ping("1", "room:a").await;
    handover.acknowledge_all(&mut conn).await;
    let mut conn = handover.reconnect(conn.cut().await).await;
    conn.rejoin("7", "room:a").await;
    conn.ping("7", "room:a").await;
}

async fn an_intercepted_broadcast_is_handled_while_the_client_is_away(handover: Handover) {
    let received = handover.member().await.cut().await;
    handover.server.broadcast("room:a", "shout", r#"{"n":1}"#).await;
    handover.server.broadcast("room:a", "shout", r#"{"n":2,"skip":"u1"}"#).await;
    let mut conn = handover.reconnect(received).await;
    conn.rejoin("7", "room:a").await;
    conn.expect(r#"[null,null,"room:a","shout",{"n":1,"to":"u1"}]"#).await;
    conn.ping("7", "room:a").await;
}

async fn two_joins_in_a_row_are_harmless(handover: Handover) {
    let received = handover.member().await.cut().await;
    for number in 1..=3 {
        handover.broadcast("room:a", number).await;
    }
    let mut conn = handover.reconnect(received).await;
    conn.send_all(&[r#"["7","7","room:a","phx_join",{}]"#, r#"["8","8","room:a","phx_join",{}]"#])
        .await;
    let (mut replies, mut messages) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let got = conn.recv().await;
        if got.contains("phx_reply") { replies.push(got) } else { messages.push(got) }
    }
    assert_eq!(replies, [ok("7", "room:a"), ok("8", "room:a")]);
    assert_eq!(messages, [1, 2, 3].map(|number| new_msg("room:a", number)));
    conn.ping("8", "room:a").await;
}

async fn after_a_crash_the_next_join_starts_a_new_channel(handover: Handover) {
    let mut witness = witness(&handover.server, "room:a").await;
    let mut conn = handover.member().await;
    conn.send_all(&[r#"["1",null,"room:a","new_msg",{"n":1}]"#, r#"["1","2","room:a","boom",{}]"#])
        .await;
    witness.expect(&new_msg("room:a", 1)).await;
    let received = conn.cut().await;
    // The crash may not have happened yet, which only a join can find out.
    let mut conn = handover.reconnect(received).await;
    conn.join_after_a_crash("room:a").await;
    conn.ping("last", "room:a").await;
}

async fn repeated_reconnects_lose_nothing(handover: Handover) {
    let mut received = handover.member().await.cut().await;
    for round in 0..4 {
        handover.broadcast("room:a", 2 * round).await;
        let transport = if round % 2 == 0 { handover.to } else { handover.from };
        let mut conn = handover.connect(transport, received).await;
        let join_ref = &format!("again-{round}");
        conn.rejoin(join_ref, "room:a").await;
        handover.broadcast("room:a", 2 * round + 1).await;
        conn.expect(&new_msg("room:a", 2 * round)).await;
        conn.expect(&new_msg("room:a", 2 * round + 1)).await;
        conn.ping(join_ref, "room:a").await;
        handover.acknowledge_all(&mut conn).await;
        received = conn.cut().await;
    }
}

async fn a_disconnect_by_id_ends_a_detached_session(handover: Handover) {
    let received = handover.member().await.cut().await;
    handover.broadcast("room:a", 1).await;
    handover.server.disconnect("user_socket:u1").await;
    let mut conn = handover.reconnect(received).await;
    conn.join("7", "room:a").await;
    conn.ping("7", "room:a").await;
}

async fn a_session_that_exceeds_the_outbox_limit_starts_anew(handover: Handover) {
    let received = handover.member().await.cut().await;
    let large = format!(r#""{}""#, "x".repeat(500_000));
    for _ in 0..5 {
        handover.server.broadcast("room:a", "new_msg", &large).await;
    }
    handover.broadcast("room:a", 1).await;
    let mut conn = handover.reconnect(received).await;
    conn.join("7", "room:a").await;
    handover.broadcast("room:a", 2).await;
    conn.expect(&new_msg("room:a", 2)).await;
    conn.ping("7", "room:a").await;
}

async fn another_user_cannot_access_the_session(handover: Handover) {
    let received = handover.member().await.cut().await;
    handover.broadcast("room:a", 1).await;
    let other = "user_id=u2&session=0123456789abcdefghijkl&received=0";
    let mut client = Client::connect(&handover.server, handover.to, handover.version, other).await;
    // It gets an ordinary session, which behaves exactly as in Phoenix.
    client.send(r#"["1","1","room:a","phx_join",{}]"#).await;
    client.expect(r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1",null,"room:a","joined",{"user_id":"u2"}]"#).await;
    client.ping("1", "room:a").await;
    let mut conn = handover.reconnect(received).await;
    conn.rejoin("7", "room:a").await;
    conn.expect(&new_msg("room:a", 1)).await;
    conn.ping("7", "room:a").await;
}
