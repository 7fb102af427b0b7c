//! The contract of records, over SQLite: nodes are users of one store here.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use tower_channels::adapter::{
    Adapter, AdapterLimits, BoxFuture, Channel, HistoryStore, Link, NodeId, NodeInbox,
    PublishError, Reached, Store,
};
use tower_channels_adapter_tests::contract::{Harness, Line, Settings};
use tower_channels_adapter_tests::folder::Folder;
use tower_channels_adapter_tests::records_contract;
use tower_channels_sqlite::Sqlite;

struct OnSqlite(Arc<Sqlite>, #[allow(dead_code, reason = "removed at the end")] Folder);

/// One of the users.
#[derive(Debug)]
struct User(Arc<Sqlite>);

struct NoLine;

impl Harness for OnSqlite {
    async fn start() -> Option<Self> {
        let folder = Folder::new();
        Some(Self(Arc::new(Sqlite::open(folder.path().join("history")).expect("opens")), folder))
    }

    async fn connect(&self, _: Settings) -> (Box<dyn Adapter>, Box<dyn Line>) {
        (Box::new(User(Arc::clone(&self.0))), Box::new(NoLine))
    }

    async fn kill(&mut self) {
        unreachable!("a file does not die")
    }

    async fn restart(&mut self) {
        unreachable!("a file does not die")
    }

    async fn connections(&self) -> usize {
        0
    }
}

impl Line for NoLine {
    fn cut(&self) {}

    fn stall(&self) {}

    fn heal(&self) {}
}

impl Adapter for User {
    fn start(&self, _: NodeId, inbox: Arc<dyn NodeInbox>) {
        inbox.link(Link::Up);
    }

    fn publish(&self, _: Channel<'_>, _: Bytes) -> Result<(), PublishError> {
        Err(PublishError::Unsupported)
    }

    fn reach(&self, _: NodeId, _: Bytes) -> BoxFuture<'_, Reached> {
        Box::pin(ready(Reached::Unknown))
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn listen(&self, _: &str) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }

    fn ignore(&self, _: &str) {}

    fn hear_all(&self, _: bool) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }

    fn reconnect(&self) {}

    fn limits(&self) -> AdapterLimits {
        AdapterLimits::new(1 << 20)
    }

    fn store(&self) -> Option<&dyn Store> {
        self.0.records()
    }
}

records_contract! { @of_a_file OnSqlite }

#[tokio::test]
async fn records_outlive_the_store() {
    let folder = Folder::new();
    let open = || Sqlite::open(folder.path().join("history")).expect("opens");
    let hour = std::time::Duration::from_secs(3600);
    let first = open();
    let value = Bytes::from_static(b"value");
    let replaced = Store::replace(&first, "key", None, Some(value.clone()), hour).await;
    let tower_channels::adapter::Replaced::Yes(revision) = replaced.expect("an answer") else {
        panic!("there was none")
    };
    drop(first);
    let there = Store::read(&open(), "key").await.expect("an answer").expect("it is there");
    assert_eq!((there.value, there.revision), (value, revision));
}

/// A file of an earlier release has no records.
#[tokio::test]
async fn a_file_without_records_gets_them() {
    let folder = Folder::new();
    let path = folder.path().join("history");
    drop(Sqlite::open(&path).expect("opens"));
    let file = rusqlite::Connection::open(&path).expect("opens");
    file.execute_batch("DROP TABLE records").expect("there is one");
    drop(file);
    let store = Sqlite::open(&path).expect("opens");
    assert_eq!(Store::read(&store, "key").await.expect("an answer"), None);
}
