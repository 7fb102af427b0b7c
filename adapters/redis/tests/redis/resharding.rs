//! A Redis Cluster whose keys move from one server to another while messages are kept.

use tower_channels_adapter_tests::engines::{Kind, RedisConfig as Server, RedisServer};

use crate::keeper::{Keeper, Told, texts, told};
use crate::node::config;

/// Appends messages with the next numbers.
struct Writer<'a> {
    keeper: &'a Keeper,
    waiting: Vec<Told>,
}

impl Writer<'_> {
    fn append(&mut self, count: usize) {
        for _ in 0..count {
            let number = self.waiting.len().to_string();
            self.waiting.push(self.keeper.append("t", number));
        }
    }
}

async fn id(server: &RedisServer) -> String {
    server.ask(&["CLUSTER", "MYID"]).await
}

/// Moves a slot to another server, as an operator does, while messages are appended.
async fn move_slot(
    slot: &str,
    servers: &[RedisServer; 3],
    [from, to]: [usize; 2],
    it: &mut Writer<'_>,
) {
    let ids = [id(&servers[from]).await, id(&servers[to]).await];
    servers[to].ask(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &ids[0]]).await;
    servers[from].ask(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &ids[1]]).await;
    let port = servers[to].address().port().to_string();
    loop {
        it.append(5);
        let key = servers[from].ask(&["CLUSTER", "GETKEYSINSLOT", slot, "1"]).await;
        if key.is_empty() {
            break;
        }
        servers[from].ask(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]).await;
        it.append(5);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for server in [to, from, 3 - from - to] {
        servers[server].ask(&["CLUSTER", "SETSLOT", slot, "NODE", &ids[1]]).await;
        it.append(5);
    }
}

#[tokio::test]
async fn messages_are_kept_once_and_in_order_while_their_keys_move_to_another_server() {
    for is_durable in [true, false] {
        let Some(servers) = Server::new(Kind::Redis).start_cluster().await else { return };
        let config = |server: &RedisServer| {
            let config = config(server.address());
            if is_durable { config.durable() } else { config }
        };
        let keeper = Keeper::start(config(&servers[0]), &["t"]).await;
        let other = Keeper::start(config(&servers[1]), &["t"]).await;
        let first = keeper.keep("t", "first").await;
        let slot = servers[0].ask(&["CLUSTER", "KEYSLOT", "{test}"]).await;
        let mut at = 0;
        while servers[at].ask(&["CLUSTER", "COUNTKEYSINSLOT", &slot]).await == "0" {
            at += 1;
        }
        let mut writer = Writer { keeper: &keeper, waiting: Vec::new() };
        for _ in 0..2 {
            let to = (at + 1) % 3;
            move_slot(&slot, &servers, [at, to], &mut writer).await;
            at = to;
        }
        let mut positions = vec![first];
        for waiting in writer.waiting {
            positions.push(told(waiting).await.expect("it is kept"));
        }
        let page = other.newest("t").await;
        let found: Vec<_> = page.messages.iter().map(|kept| kept.position).collect();
        assert_eq!(found, positions);
        let numbers = (0..positions.len() - 1).map(|number| number.to_string());
        let expected: Vec<_> = std::iter::once("first".to_owned()).chain(numbers).collect();
        assert_eq!(texts(&page.messages), expected);
        // Another process may have lost something, as far as anybody knows.
        assert_eq!(other.after("t", first).await.is_complete, is_durable);
        for node in [&keeper, &other] {
            for position in &positions[1..] {
                node.hears("t", *position).await;
            }
        }
    }
}
