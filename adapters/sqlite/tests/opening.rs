//! What becomes of files that cannot be used, and of stores whose file fails them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tower_channels::adapter::{Append, HistoryInbox, HistoryStore, Keep, Kept, Since, StoreError};
use tower_channels::history::Position;
use tower_channels_adapter_tests::folder::Folder;
use tower_channels_sqlite::{OpenError, Sqlite, SqliteConfig};

const KEEP: Keep = Keep { messages: 10_000, bytes: 1 << 30, within: Duration::from_secs(3600) };

fn file(folder: &Folder) -> PathBuf {
    folder.path().join("history")
}

fn refused(path: impl AsRef<Path>) -> OpenError {
    Sqlite::open(path.as_ref()).expect_err("it is refused")
}

fn sqlite(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
}

/// Counts what is handed over, and what was lost.
#[derive(Default)]
struct Count {
    kept: AtomicUsize,
    lost: AtomicUsize,
}

impl HistoryInbox for Count {
    fn kept(&self, _: &str, _: Kept) {
        self.kept.fetch_add(1, Ordering::Relaxed);
    }

    fn lost(&self, topic: &str, _: &StoreError) {
        assert_eq!(topic, "nobody waits");
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

async fn append(
    store: &Sqlite,
    topic: &str,
    content: impl Into<Bytes>,
    keep: Keep,
) -> Result<Position, StoreError> {
    let (done, told) = oneshot::channel();
    let message = Append { topic: topic.into(), content: content.into(), keep, done: Some(done) };
    store.append(message).unwrap();
    tokio::time::timeout(Duration::from_secs(30), told).await.unwrap().unwrap()
}

#[test]
fn a_folder_that_does_not_exist_or_cannot_be_written_is_named() {
    let folder = Folder::new();
    fs::write(folder.path().join("file"), "").unwrap();
    for path in [folder.path().join("none/history"), folder.path().join("file/history")] {
        let error = refused(&path);
        assert!(matches!(&error, OpenError::Inaccessible { .. }), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    // Nobody may write there.
    if Path::new("/proc/self").exists() {
        assert!(matches!(refused("/proc/history"), OpenError::Inaccessible { .. }));
    }
    assert!(matches!(refused(folder.path()), OpenError::Inaccessible { .. }));
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_written_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    drop(Sqlite::open(file(&folder)).unwrap());
    fs::set_permissions(file(&folder), fs::Permissions::from_mode(0o444)).unwrap();
    // Root may.
    if fs::OpenOptions::new().write(true).open(file(&folder)).is_err() {
        assert!(matches!(refused(file(&folder)), OpenError::Inaccessible { .. }));
    }
}

#[test]
fn a_file_of_something_else_is_refused_and_left_alone() {
    let folder = Folder::new();
    fs::write(file(&folder), "not a database, but a text of some length".repeat(100)).unwrap();
    assert!(matches!(refused(file(&folder)), OpenError::Corrupt { .. }));
    assert!(fs::read(file(&folder)).unwrap().starts_with(b"not a database"));

    let other = folder.path().join("other");
    sqlite(&other).execute_batch("CREATE TABLE users (name TEXT)").unwrap();
    assert_eq!(refused(&other), OpenError::Foreign(other.clone()));
    let tables = "SELECT group_concat(name) FROM sqlite_schema";
    let tables: String = sqlite(&other).query_row(tables, [], |row| row.get(0)).unwrap();
    assert_eq!(tables, "users");
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let folder = Folder::new();
    let store = Sqlite::open(file(&folder)).unwrap();
    store.start(Arc::new(Count::default()));
    for _ in 0..50 {
        append(&store, "t", vec![7; 3000], KEEP).await.unwrap();
    }
    drop(store);
    let whole = fs::read(file(&folder)).unwrap();
    let half = whole.len() / 2;
    let truncated = whole[..half].to_vec();
    let mut zeroed = whole.clone();
    zeroed[4096..].fill(0);
    let mut garbled = whole.clone();
    garbled[half..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    for (what, damaged) in [("truncated", truncated), ("zeroed", zeroed), ("garbled", garbled)] {
        fs::write(file(&folder), damaged).unwrap();
        let error = refused(file(&folder));
        assert!(matches!(error, OpenError::Corrupt { .. }), "{what}: {error:?}");
    }
    fs::write(file(&folder), whole).unwrap();
    assert!(Sqlite::open(file(&folder)).is_ok());
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let folder = Folder::new();
    drop(Sqlite::open(file(&folder)).unwrap());
    sqlite(&file(&folder)).execute_batch("PRAGMA user_version = 1000").unwrap();
    let error = refused(file(&folder));
    assert_eq!(error, OpenError::Newer { path: file(&folder), version: 1000 });
    assert!(error.to_string().contains("newer"), "{error}");
}

#[test]
fn one_store_at_a_time_opens_a_file() {
    let folder = Folder::new();
    let store = Sqlite::open(file(&folder)).unwrap();
    let error = refused(file(&folder));
    assert_eq!(error, OpenError::InUse(file(&folder)));
    assert!(error.to_string().contains("in use"), "{error}");
    drop(store);
    assert!(Sqlite::open(file(&folder)).is_ok());
}

#[tokio::test]
async fn others_can_look_into_the_file() {
    let folder = Folder::new();
    let store = Sqlite::open(file(&folder)).unwrap();
    store.start(Arc::new(Count::default()));
    append(&store, "t", "1", KEEP).await.unwrap();
    let other = sqlite(&file(&folder));
    let count = || -> i64 {
        other.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(), 1);
    append(&store, "t", "2", KEEP).await.unwrap();
    assert_eq!(count(), 2);
}

#[tokio::test]
async fn what_another_process_locks_is_refused_until_it_lets_go() {
    let folder = Folder::new();
    let store = Sqlite::open(file(&folder)).unwrap();
    let count = Arc::<Count>::default();
    store.start(count.clone());
    let first = append(&store, "t", "1", KEEP).await.unwrap();
    let other = sqlite(&file(&folder));
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let topic = "nobody waits".into();
    store.append(Append { topic, content: "x".into(), keep: KEEP, done: None }).unwrap();
    assert!(append(&store, "t", "2", KEEP).await.is_err());
    let page = store.read("t", Since::After(first), 10).await.unwrap();
    assert_eq!((page.messages.len(), page.is_complete), (0, true));
    assert_eq!(count.kept.load(Ordering::Relaxed), 1);
    assert_eq!(count.lost.load(Ordering::Relaxed), 1);
    other.execute_batch("ROLLBACK").unwrap();
    append(&store, "t", "3", KEEP).await.unwrap();
}

#[tokio::test]
async fn a_full_file_refuses_messages_until_there_is_room() {
    let folder = Folder::new();
    let store = Sqlite::with(SqliteConfig::new(file(&folder)).max_size(1 << 20)).unwrap();
    let count = Arc::<Count>::default();
    store.start(count.clone());
    let few = Keep { messages: 3, ..KEEP };
    let brief = Keep { within: Duration::from_secs(1), ..KEEP };
    for _ in 0..5 {
        append(&store, "few", vec![1; 10_000], few).await.unwrap();
    }
    let mut kept = 5;
    let mut full = None;
    for _ in 0..200 {
        match append(&store, "many", vec![1; 10_000], brief).await {
            Ok(_) => kept += 1,
            Err(error) => full = Some(error),
        }
    }
    assert!(full.expect("it is full at last").to_string().contains("full"));
    // A topic that is full itself goes on: what is new takes the place of what is old.
    append(&store, "few", vec![2; 10_000], few).await.unwrap();
    kept += 1;
    assert_eq!(store.read("few", Since::Newest, 10).await.unwrap().messages.len(), 3);
    // The others do when some is too old.
    let deadline = Instant::now() + Duration::from_secs(30);
    while append(&store, "many", vec![1; 10_000], brief).await.is_err() {
        assert!(Instant::now() < deadline, "it is full for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    kept += 1;
    drop(store);
    assert_eq!(count.kept.load(Ordering::Relaxed), kept);
}

/// Drops the store from within, as an inbox does that has the last reference.
#[derive(Default)]
struct Dropping(Mutex<Option<Sqlite>>);

impl HistoryInbox for Dropping {
    fn kept(&self, _: &str, _: Kept) {
        drop(self.0.lock().unwrap().take());
    }
}

#[test]
fn a_store_can_be_dropped_by_its_inbox() {
    let folder = Folder::new();
    let store = Sqlite::open(file(&folder)).unwrap();
    let inbox = Arc::<Dropping>::default();
    store.start(inbox.clone());
    let mut place = inbox.0.lock().unwrap();
    for topic in ["a", "b"] {
        let message = Append { topic: topic.into(), content: "x".into(), keep: KEEP, done: None };
        store.append(message).unwrap();
    }
    *place = Some(store);
    drop(place);
    // It lets go of the file when it has written both.
    let deadline = Instant::now() + Duration::from_secs(30);
    while Sqlite::open(file(&folder)).is_err() {
        assert!(Instant::now() < deadline, "it holds the file for ever");
    }
    let count = "SELECT count(*) FROM messages";
    let count: i64 = sqlite(&file(&folder)).query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(count, 2);
}

#[test]
fn a_store_that_was_never_started_writes_what_it_has_taken() {
    let folder = Folder::new();
    let store = Sqlite::open(file(&folder)).unwrap();
    let (done, mut told) = oneshot::channel();
    let message = Append { topic: "t".into(), content: "x".into(), keep: KEEP, done: Some(done) };
    store.append(message).unwrap();
    drop(store);
    assert_eq!(told.try_recv().unwrap().unwrap().number, 1);
}
