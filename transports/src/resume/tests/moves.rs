//! Sessions that move between nodes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::nodes::{Client, Fault, Frame, ID, Node, TTL, Ws, event, nodes};
use crate::frame::Close;
use crate::peers::{BoxFuture, Offering, Wanted};
use crate::resume::{ResumeConfig, ResumeRegistry};

const SECOND: Duration = Duration::from_secs(1);

fn wanted(received: Option<u64>) -> Wanted {
    Wanted { id: ID.into(), socket_id: Some("ann".into()), received }
}

#[tokio::test(start_paused = true)]
async fn a_websocket_at_another_node_loses_and_repeats_nothing() {
    let (cluster, [a, b, _]) = nodes();
    let mut client = Client::numbered();
    let mut first = a.join(&mut client, 0).await;
    ["1", "2"].into_iter().for_each(|text| a.push(text));
    first.read(&mut client, 2).await;
    // It is sent, and the client does not read it.
    a.push("3");
    tokio::task::yield_now().await;
    let pusher = a.tabs.outbox.lock().clone().unwrap();
    *cluster.before_take.lock() =
        Some(Box::new(move || Box::pin(async move { pusher.push(event("meanwhile")) })));
    let mut second = b.join(&mut client, 3).await;
    assert_eq!(client.take_seen(), ["joined", "1", "2", "joined", "3", "meanwhile", "last"]);
    assert_eq!(a.record(), ["detached", "packed for Some(b\"prepared\")", "dropped"]);
    assert_eq!(b.record(), ["unpacked"]);
    b.push("4");
    second.read(&mut client, 1).await;
    assert_eq!(client.take_seen(), ["4"]);
    // What was written before the move, and the end.
    assert_eq!(first.next().await, Frame::Text("\"s:3\" 3".into()));
    assert_eq!(first.next().await, Frame::Close(1012));
    assert_eq!((a.acceptor.detached_sessions(), a.acceptor.detached().len()), (0, 0));
    assert!(cluster.released.lock().is_empty());
    // And back.
    drop(second);
    let _third = a.join(&mut client, 1).await;
    assert_eq!(client.take_seen(), ["joined", "last"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_no_numbers_gets_everything_at_least_once() {
    let (_cluster, [a, b, _]) = nodes();
    let mut client = Client::default();
    let mut first = a.join(&mut client, 0).await;
    ["1", "2", "3"].into_iter().for_each(|text| a.push(text));
    first.read(&mut client, 2).await;
    let _second = b.join(&mut client, 4).await;
    assert_eq!(client.take_seen(), ["joined", "1", "2", "joined", "1", "2", "3", "last"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_at_another_node_takes_the_session_with_its_first_use() {
    let (cluster, [a, b, _]) = nodes();
    let mut client = Client::numbered();
    let token = a.longpoll(&client).await;
    for text in ["join", "1"] {
        assert_eq!(a.request(Some(&token), Some(text), &client).await.status, 200);
    }
    let token = a.poll(&token, &mut client).await;
    assert_eq!(client.take_seen(), ["joined", "1"]);
    let (waiting, ()) = tokio::join!(a.request(Some(&token), None, &client), async {
        tokio::time::sleep(SECOND).await;
        let unused = b.longpoll(&client).await;
        tokio::time::sleep(SECOND).await;
        assert_eq!(*cluster.finds.lock(), 1, "a token that is not used claims nothing");
        assert_eq!(b.request(Some(&unused), Some("join"), &client).await.status, 200);
        let mut other = Client { received: client.received, ..Client::default() };
        b.poll(&unused, &mut other).await;
        assert_eq!(other.take_seen(), ["joined", "last"]);
    });
    assert_eq!((waiting.status, waiting.token.as_str()), (204, token.as_str()));
    let began = tokio::time::Instant::now();
    assert_eq!(a.request(Some(&token), None, &client).await.status, 500);
    assert_eq!(began.elapsed(), Duration::ZERO, "its session is known to be elsewhere");
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_while_the_session_is_looked_for_wait_for_it() {
    let (cluster, [a, b, _]) = nodes();
    let mut client = Client::numbered();
    let first = a.join(&mut client, 0).await;
    a.push("1");
    drop(first);
    let gate = Arc::default();
    *cluster.gate.lock() = Some(Arc::clone(&gate));
    let token = b.longpoll(&client).await;
    let mut other = Client { received: client.received, ..Client::default() };
    let ((), posted, _) = tokio::join!(
        async {
            tokio::time::sleep(SECOND).await;
            gate.notify_one();
        },
        b.request(Some(&token), Some("join"), &client),
        b.poll(&token, &mut other),
    );
    assert_eq!(posted.status, 200);
    if other.seen.len() < 3 {
        b.poll(&token, &mut other).await;
    }
    assert_eq!(other.seen[..3], ["joined", "1", "last"]);
    assert_eq!(*cluster.finds.lock(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_meanwhile_finds_its_session_at_the_new_node() {
    let (cluster, [a, b, _]) = nodes();
    for is_websocket in [true, false] {
        let mut client = Client::numbered();
        drop(a.join(&mut client, 0).await);
        client.seen.clear();
        a.push("1");
        let gate: Arc<Notify> = Arc::default();
        *cluster.gate.lock() = Some(Arc::clone(&gate));
        if is_websocket {
            drop(b.websocket(&client).await);
        } else {
            let token = b.longpoll(&client).await;
            let poll = b.request(Some(&token), None, &client);
            assert!(tokio::time::timeout(SECOND, poll).await.is_err());
        }
        *cluster.gate.lock() = None;
        gate.notify_one();
        // A long-poll client may still come.
        tokio::time::sleep(TTL / 2).await;
        assert_eq!(b.acceptor.detached(), [(Arc::from(ID), Some("ann".into()))]);
        assert_eq!((a.acceptor.detached(), a.acceptor.is_detached(ID)), (Vec::new(), false));
        let _ws = b.join(&mut client, 2).await;
        assert_eq!(client.take_seen(), ["joined", "1", "last"]);
        b.acceptor.end_moved(ID);
        cluster.released.lock().clear();
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_that_take_one_session_one_gets_it() {
    let (_cluster, [a, b, c]) = nodes();
    let mut client = Client::numbered();
    let _first = a.join(&mut client, 0).await;
    let (mut at_b, mut at_c) = (b.websocket(&client).await, c.websocket(&client).await);
    at_b.send("join").await;
    at_c.send("join").await;
    tokio::time::sleep(SECOND).await;
    let taken = [b.record(), c.record()].concat();
    assert_eq!(taken.iter().filter(|it| *it == "unpacked").count(), 1, "{taken:?}");
    assert!(a.record().contains(&"dropped".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn of_two_connects_with_one_id_at_one_node_the_second_finds_it_there() {
    let (cluster, [a, b, _]) = nodes();
    let mut client = Client::numbered();
    drop(a.join(&mut client, 0).await);
    let older = b.websocket(&client).await;
    let _newer = b.join(&mut client, 1).await;
    assert_eq!(client.take_seen(), ["joined", "joined", "last"]);
    assert_eq!(*cluster.finds.lock(), 3);
    assert_eq!(b.record(), ["unpacked", "dropped"], "what the second connect has made");
    drop(older);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_come_back_keeps_its_session() {
    let (cluster, [a, b, _]) = nodes();
    let (cluster_nodes, mut client) = (Arc::clone(&cluster), Client::numbered());
    let _first = a.join(&mut client, 0).await;
    a.push("1");
    let back = Arc::new(tokio::sync::Mutex::new(None));
    let (a, hold) = (Arc::new(a), Arc::clone(&back));
    let node = Arc::clone(&a);
    *cluster_nodes.before_take.lock() = Some(Box::new(move || {
        Box::pin(async move {
            let mut client = Client::numbered();
            let ws = node.join(&mut client, 1).await;
            *hold.lock().await = Some((client, ws));
        })
    }));
    let mut other = Client::numbered();
    let mut elsewhere = b.join(&mut other, 0).await;
    assert_eq!(other.take_seen(), ["joined"], "it has begun anew");
    b.push("new");
    elsewhere.read(&mut other, 1).await;
    let (mut client, mut ws) = back.lock().await.take().unwrap();
    a.push("2");
    ws.read(&mut client, 1).await;
    assert_eq!(client.take_seen(), ["joined", "1", "2"]);
    assert_eq!(a.record(), ["detached", "dropped"], "what the second connect has made");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_died_since_it_was_offered_is_gone() {
    let (cluster, [a, b, _]) = nodes();
    let mut client = Client::numbered();
    let _first = a.join(&mut client, 0).await;
    let outbox = a.tabs.outbox.lock().clone().unwrap();
    let die = move || -> BoxFuture<()> { Box::pin(async move { outbox.close(Close::Restart) }) };
    *cluster.before_take.lock() = Some(Box::new(die));
    let mut other = Client::numbered();
    let _second = b.join(&mut other, 0).await;
    assert_eq!(other.take_seen(), ["joined"]);
    // Before anybody sweeps.
    assert_eq!(*cluster.released.lock(), [ID.into()]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_had_a_newer_session_elsewhere_goes_on_with_that() {
    let (cluster, [a, b, _]) = nodes();
    let mut client = Client::numbered();
    drop(a.join(&mut client, 0).await);
    a.push("stale");
    // A is thought dead, and is not.
    cluster.forget();
    let mut second = b.join(&mut client, 0).await;
    b.push("1");
    second.read(&mut client, 1).await;
    drop(second);
    b.push("2");
    let _third = a.join(&mut client, 2).await;
    assert_eq!(client.take_seen(), ["joined", "joined", "1", "joined", "2", "last"]);
    assert!(a.record().contains(&"unpacked".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_giving_a_session_away_or_looks_for_it_is_busy() {
    let (cluster, [a, b, _]) = nodes();
    let mut client = Client::numbered();
    drop(a.join(&mut client, 0).await);
    let asked = wanted(Some(0));
    a.fails(Fault::PackHangs);
    let _second = b.websocket(&client).await;
    tokio::time::sleep(SECOND).await;
    assert!(matches!(a.acceptor.offer(&asked), Offering::Busy), "it is being packed");
    assert!(matches!(b.acceptor.offer(&asked), Offering::Busy), "it is being taken");
    tokio::time::sleep(2 * SECOND).await;
    assert!(matches!(a.acceptor.offer(&asked), Offering::None));
    assert!(matches!(b.acceptor.offer(&asked), Offering::Offered(_)));
    assert_eq!(cluster.released.lock().len(), 1, "by A, which has lost it");
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_found_its_session_begins_no_other() {
    let (cluster, [a, ..]) = nodes();
    let mut client = Client::numbered();
    let mut first = a.join(&mut client, 0).await;
    let token = a.longpoll(&client).await;
    // Its user is banned.
    a.tabs.outbox.lock().take().unwrap().close(Close::GoingAway);
    assert_eq!(first.next().await, Frame::Close(1001));
    drop(first);
    tokio::time::sleep(SECOND).await;
    assert_eq!(a.request(Some(&token), Some("join"), &client).await.status, 500);
    assert_eq!((a.acceptor.detached_sessions(), a.acceptor.detached()), (0, vec![]));
    drop(cluster);
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_is_closed_meanwhile_takes_nothing() {
    let (cluster, [a, b, _]) = nodes();
    let mut client = Client::numbered();
    drop(a.join(&mut client, 0).await);
    let gate: Arc<Notify> = Arc::default();
    *cluster.gate.lock() = Some(Arc::clone(&gate));
    let mut ws = b.websocket(&client).await;
    tokio::time::sleep(SECOND).await;
    b.tabs.newest.lock().take().unwrap().close(Close::Restart);
    gate.notify_one();
    assert_eq!(ws.next().await, Frame::Eof);
    assert_eq!(*cluster.released.lock(), [ID.into()], "by B, in case it has the id");
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(a.acceptor.detached().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_not_given_to_a_node_that_cannot_wait_for_it() {
    let (cluster, [a, ..]) = nodes();
    let mut client = Client::numbered();
    drop(a.join(&mut client, 0).await);
    let asked = wanted(client.received);
    let Offering::Offered(offered) = a.acceptor.offer(&asked) else { panic!("not offered") };
    // Its client has come back, and this node is asking for the session.
    let gate: Arc<Notify> = Arc::default();
    *cluster.gate.lock() = Some(Arc::clone(&gate));
    let mut ws = a.websocket(&client).await;
    tokio::time::sleep(SECOND).await;
    let given = tokio::time::timeout(SECOND, offered.give(Some("prepared".into()))).await;
    assert_eq!(given, Ok(None));
    gate.notify_one();
    a.push("1");
    ws.send("join").await;
    ws.read(&mut client, 2).await;
    assert_eq!(client.take_seen(), ["joined", "joined", "1"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_just_offered_is_left_to_who_asked() {
    let (_cluster, [a, ..]) = nodes();
    let mut client = Client::numbered();
    drop(a.join(&mut client, 0).await);
    tokio::time::sleep(SECOND).await;
    assert_eq!(a.acceptor.detached().len(), 1);
    let offering = a.acceptor.offer(&wanted(Some(0)));
    assert_eq!((a.acceptor.detached(), a.acceptor.is_detached(ID)), (Vec::new(), false));
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!((a.acceptor.detached().len(), a.acceptor.is_detached(ID)), (1, true));
    drop(offering);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_while_its_id_is_claimed_releases_nothing() {
    let (cluster, [a, ..]) = nodes();
    let mut client = Client::numbered();
    drop(a.join(&mut client, 0).await);
    let gate: Arc<Notify> = Arc::default();
    *cluster.gate.lock() = Some(Arc::clone(&gate));
    // The sweep comes between this end and the answer of the others.
    a.tabs.outbox.lock().take().unwrap().close(Close::GoingAway);
    let mut ws = a.websocket(&client).await;
    ws.send("join").await;
    tokio::time::sleep(TTL / 2).await;
    assert_eq!(a.acceptor.detached_sessions(), 0);
    gate.notify_one();
    ws.read(&mut client, 1).await;
    assert!(cluster.released.lock().is_empty());
}

#[tokio::test]
async fn an_offer_waits_for_no_callback() {
    let registry = ResumeRegistry::new(ResumeConfig::new().anonymous(true));
    drop(super::connect(&registry, ID));
    let asked = Wanted { socket_id: None, ..wanted(None) };
    let session = registry.find(ID).unwrap();
    let turn = session.turn.lock();
    assert!(matches!(registry.offer(&asked), Offering::Busy));
    drop(turn);
    assert!(matches!(registry.offer(&asked), Offering::Offered(_)));
}

#[tokio::test(start_paused = true)]
async fn an_offer_that_nobody_takes_leaves_the_session_without_a_connection() {
    let (_cluster, [a, ..]) = nodes();
    let mut client = Client::numbered();
    let mut first = a.join(&mut client, 0).await;
    let offering = a.acceptor.offer(&wanted(Some(0)));
    assert!(matches!(offering, Offering::Offered(_)));
    assert_eq!(first.next().await, Frame::Close(1012));
    drop(offering);
    a.push("1");
    assert_eq!(a.acceptor.detached_sessions(), 1);
    let _second = a.join(&mut client, 1).await;
    assert_eq!(client.take_seen(), ["joined", "joined", "1"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_deposited_is_packed_for_nobody() {
    let (_cluster, [a, ..]) = nodes();
    let mut client = Client::numbered();
    drop(a.join(&mut client, 0).await);
    let Offering::Offered(offer) = a.acceptor.offer(&wanted(Some(0))) else { panic!("an offer") };
    assert_eq!(offer.outline(), "outline");
    assert!(offer.give(None).await.is_some());
    assert_eq!(a.record(), ["detached", "packed for None", "dropped"]);
    assert!(matches!(a.acceptor.offer(&wanted(None)), Offering::None));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_for_the_client_is_not_offered() {
    let (_cluster, [a, b, _]) = nodes();
    let mut client = Client::numbered();
    let mut first = a.join(&mut client, 0).await;
    // Another user gets a session of its own, and does not find this one later either.
    let mut other = Client { user: Some("bob"), ..Client::numbered() };
    let mut theirs = b.join(&mut other, 0).await;
    b.push("theirs");
    theirs.read(&mut other, 1).await;
    assert_eq!(other.take_seen(), ["joined", "theirs"]);
    drop(theirs);
    tokio::time::sleep(SECOND).await;
    assert_eq!(b.acceptor.detached(), []);
    a.push("1");
    first.read(&mut client, 1).await;
    assert_eq!(client.take_seen(), ["joined", "1"]);
}

#[tokio::test(start_paused = true)]
async fn websockets_that_keep_dying_are_refused_before_they_open_and_once_by_each_node() {
    let (_cluster, [a, b, c]) = nodes();
    let mut client = Client::numbered();
    let lose = async |node: &Node, client: &mut Client| {
        drop(node.join(client, usize::from(!client.seen.is_empty())).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // They wander, and the count goes along.
    for node in [&a, &b, &a, &b] {
        lose(node, &mut client).await;
        assert!(!node.refuses(&client).await);
    }
    for node in [&a, &b, &c] {
        assert!(!node.refuses(&client).await, "it has lost none of five yet");
        lose(node, &mut client).await;
    }
    for node in [&a, &b, &c] {
        assert!(
            node.refuses(&client).await,
            "it has lost one, and has the session or has given it away"
        );
        assert!(!node.refuses(&client).await, "it has refused one");
    }
    // A client that has nothing else goes on.
    let mut ws = a.join(&mut client, 1).await;
    a.push("1");
    ws.read(&mut client, 1).await;
    assert_eq!(client.take_seen().pop().as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn two_clients_with_one_id_on_two_nodes_are_parted() {
    let (_cluster, [a, b, _]) = nodes();
    let mut client = Client::default();
    let mut last: Option<Ws> = None;
    for round in 0..12 {
        let node = if round % 2 == 0 { &a } else { &b };
        let ws = node.join(&mut client, 0).await;
        if !node.record().contains(&"unpacked".to_owned()) && round > 0 {
            assert!(round >= 8, "parted in round {round}");
            return;
        }
        // The client that has lost it is still there.
        if let Some(mut other) = last.replace(ws) {
            while other.next().await != Frame::Close(1012) {}
            other.answer_close().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    panic!("they are not parted");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_continued_begins_anew() {
    let faults = [
        (None, true),
        (Some((0, Fault::PackPanics)), false),
        (Some((0, Fault::PackHangs)), false),
        (Some((1, Fault::Refuses)), false),
    ];
    for (fault, garbles) in faults {
        let (cluster, [a, b, _]) = nodes();
        let mut client = Client::numbered();
        drop(a.join(&mut client, 0).await);
        a.push("1");
        *cluster.garbles.lock() = garbles;
        match fault {
            Some((0, fault)) => a.fails(fault),
            Some((_, fault)) => b.fails(fault),
            None => {}
        }
        let mut ws = b.join(&mut client, 0).await;
        b.push("new");
        ws.read(&mut client, 1).await;
        assert_eq!(client.take_seen(), ["joined", "joined", "new"], "{fault:?}");
        assert!(a.record().contains(&"dropped".to_owned()), "{fault:?}");
        assert_eq!(a.acceptor.detached_sessions(), 0, "{fault:?}");
        let lets_go = b.record() == ["not prepared any more"];
        assert_eq!(lets_go, fault != Some((1, Fault::Refuses)), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_panics_while_it_is_continued_ends_and_the_next_begins_anew() {
    for fault in [Fault::PreparePanics, Fault::UnpackPanics] {
        let (cluster, [a, b, _]) = nodes();
        let mut client = Client::numbered();
        drop(a.join(&mut client, 0).await);
        b.fails(fault);
        let mut ws = b.websocket(&client).await;
        assert_eq!(ws.next().await, Frame::Eof);
        assert_eq!(*cluster.released.lock(), [ID.into()]);
        *b.tabs.fault.lock() = None;
        let _ws = b.join(&mut client, 0).await;
        assert_eq!(client.take_seen(), ["joined", "joined"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_is_too_old_takes_nothing() {
    let (_cluster, [a, b, _]) = nodes();
    let mut client = Client::numbered();
    drop(a.join(&mut client, 0).await);
    b.fails(Fault::HasExpired);
    let mut ws = b.websocket(&client).await;
    assert_eq!(ws.next().await, Frame::Eof);
    assert_eq!(a.acceptor.detached_sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_is_released_and_one_that_moves_is_not() {
    let (cluster, [a, b, _]) = nodes();
    let mut client = Client::numbered();
    drop(a.join(&mut client, 0).await);
    drop(b.join(&mut client, 1).await);
    tokio::time::sleep(TTL / 2).await;
    assert!(cluster.released.lock().is_empty());
    tokio::time::sleep(TTL).await;
    assert_eq!(*cluster.released.lock(), [ID.into()]);
    let mut last = a.join(&mut client, 0).await;
    a.acceptor.end_moved(ID);
    assert_eq!(last.next().await, Frame::Close(1012));
    tokio::time::sleep(TTL).await;
    assert_eq!(cluster.released.lock().len(), 1, "another node has it");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_would_miss_messages_begins_anew_everywhere() {
    let (_cluster, [a, b, _]) = nodes();
    let mut client = Client::numbered();
    let mut first = a.join(&mut client, 0).await;
    a.push("1");
    first.read(&mut client, 1).await;
    // The pong shows that it has reached the network, and it is evicted with time.
    tokio::time::sleep(4 * TTL).await;
    client.received = Some(0);
    let _second = b.join(&mut client, 0).await;
    assert_eq!(client.take_seen()[2..], ["joined"]);
}
