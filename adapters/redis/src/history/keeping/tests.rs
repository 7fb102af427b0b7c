use tower_channels_adapter_tests::engines::{Kind, RedisConfig as Server};

use super::super::script::Scripts;
use super::super::{Delivery, History, Queue};
use super::*;
use crate::connector::Connector;
use crate::{Names, RedisConfig};

#[test]
fn what_was_found_is_told_apart_by_the_numbers_of_its_sender() {
    let text = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
    let found =
        [&7_u64.to_be_bytes()[..], b"\0\0\0\0\0\0\0\x021-0", b"\0\0\0\0\0\0\0\x010-5", b"odd"];
    let found = Value::Array(found.map(text).into());
    let position = |number| Position { epoch: 7, number };
    assert_eq!(parse_found(found), [(2, position(1 << 20)), (1, position(5))]);
    assert!(parse_found(Value::Array(vec![text(b"")])).is_empty());
    assert!(parse_found(Value::Nil).is_empty());
}

#[tokio::test]
async fn topics_that_are_listened_to_live_for_another_day() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let connector = Connector::new(RedisConfig::new(format!("redis://{}", server.address())));
    let door = Door {
        connector,
        names: Arc::new(Names::new("test")),
        scripts: Arc::new(Scripts::new()),
        sender: 1,
        is_durable: false,
    };
    let renewals = watch::Sender::new(0);
    let retries = Arc::<Retries>::default();
    let (queue, delivery) = (Queue::new(1000, PATIENCE), Arc::<Delivery>::default());
    let history = History::new(door, queue, delivery, renewals.clone(), retries.clone());
    let History { door, shared, .. } = &history;
    let keeping = Keeping {
        door: door.clone(),
        shared: shared.clone(),
        renewals: renewals.subscribe(),
        retries,
        generation: 0,
    };
    drop(shared.delivery.interest.wait(|listening, waiter| listening.listen("quiet", waiter)));
    let keys = ["tc:{test}:t:quiet", "tc:{test}:h:quiet", "tc:{test}:h:other", "tc:{test}:t:long"];
    for key in keys {
        server.ask(&["SET", key, "x", "EX", "100"]).await;
    }
    server.ask(&["EXPIRE", keys[1], "1000000"]).await;
    let mut access = door.open(1).await.expect("it opens").access;
    keeping.refresh(&mut access).await.expect("an answer");
    let mut hours = Vec::new();
    for key in keys {
        let ttl: u64 = server.ask(&["TTL", key]).await.parse().unwrap();
        hours.push((ttl + 60) / 3600);
    }
    assert_eq!(hours, [25, 277, 0, 0]);
}
