//! What is left when a process is killed that writes.

use std::collections::HashMap;
use std::env;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tower_channels::adapter::{Append, HistoryInbox, HistoryStore, Keep, Kept, Since};
use tower_channels::history::Position;
use tower_channels_adapter_tests::folder::Folder;
use tower_channels_sqlite::Sqlite;

const ROUNDS: usize = 20;
const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
const KEEP: Keep =
    Keep { messages: 1 << 30, bytes: 1 << 30, within: Duration::from_secs(24 * 3600) };

/// Where the process that is killed finds the name of the file.
const FILE: &str = "TOWER_CHANNELS_KILLED_FILE";

/// Writes a line at once, past the harness.
fn tell(what: &str, topic: &str, position: Position, content: &str) {
    let line = format!("{what} {topic} {} {content}\n", position.number);
    io::stderr().write_all(line.as_bytes()).expect("somebody reads");
}

struct Telling;

impl HistoryInbox for Telling {
    fn kept(&self, topic: &str, message: Kept) {
        let content = String::from_utf8(message.content.to_vec()).expect("a number");
        tell("handed", topic, message.position, &content);
    }
}

/// The process that is killed. Does nothing among the other tests.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Some(file) = env::var_os(FILE) else { return };
    let store = Arc::new(Sqlite::open(PathBuf::from(file)).expect("opens"));
    store.start(Arc::new(Telling));
    let writers = TOPICS.map(|topic| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0_u64.. {
                let (done, told) = oneshot::channel();
                let content = number.to_string();
                let message = Append {
                    topic: topic.into(),
                    content: content.clone().into(),
                    keep: KEEP,
                    done: Some(done),
                };
                store.append(message).expect("room in the queue");
                let position = told.await.expect("told").expect("kept");
                tell("kept", topic, position, &content);
            }
        })
    });
    for writer in writers {
        writer.await.expect("it goes on until it is killed");
    }
}

/// What a process has told: that messages are kept, or handed over.
type Told = HashMap<(String, u64), String>;

/// Runs the process, kills it after a while, and returns what it has told.
fn run_and_kill(file: &Path, after: Duration) -> Told {
    let mut child = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "writes_until_it_is_killed", "--nocapture"])
        .env(FILE, file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut output = BufReader::new(child.stderr.take().expect("it is piped"));
    let (begun, begins) = mpsc::channel();
    let reading = thread::spawn(move || {
        let mut told = Told::new();
        let mut line = String::new();
        while output.read_line(&mut line).expect("text") > 0 {
            // The last one may be cut off.
            if let Some(line) = line.strip_suffix('\n') {
                let parts: Vec<_> = line.split(' ').collect();
                let [_, topic, number, content] = parts[..] else { panic!("{line}") };
                let number = number.parse().expect("a number");
                let before = told.insert((topic.to_owned(), number), content.to_owned());
                assert!(before.is_none_or(|before| before == content), "{line}");
            }
            line.clear();
            let _ = begun.send(());
        }
        told
    });
    let has_begun = begins.recv_timeout(Duration::from_secs(60));
    thread::sleep(after);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    has_begun.expect("a message within a minute");
    reading.join().expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_has_told_is_there() {
    let folder = Folder::new();
    let file = folder.path().join("history");
    let mut last: HashMap<&str, Position> = HashMap::new();
    let mut all = HashMap::<&str, Vec<Kept>>::new();
    for round in 0..ROUNDS {
        // Not after a number of messages: at any moment.
        let random = RandomState::new().build_hasher().finish();
        let told = run_and_kill(&file, Duration::from_micros(random % 150_000));
        let store = Sqlite::open(&file).expect("opens after a kill");
        let mut missing = told;
        for topic in TOPICS {
            let since = last.get(topic).map_or(Since::Newest, |last| Since::After(*last));
            let page = store.read(topic, since, usize::MAX).await.expect("a page");
            assert!(page.is_complete, "{topic}, round {round}");
            for (number, kept) in page.messages.iter().enumerate() {
                // One after the other, as it was written.
                assert_eq!(kept.content, number.to_string(), "{topic}, round {round}");
                if let Some(content) = missing.remove(&(topic.to_owned(), kept.position.number)) {
                    assert_eq!(kept.content, content);
                }
            }
            let before = all.entry(topic).or_default();
            before.extend(page.messages);
            for pair in before.windows(2) {
                assert_eq!(pair[1].previous, pair[0].position.number);
                assert!(pair[1].position.number > pair[0].position.number);
            }
            last.insert(topic, page.last);
        }
        assert!(missing.is_empty(), "told, and not there in round {round}: {missing:?}");
    }
    let store = Sqlite::open(&file).expect("opens");
    for topic in TOPICS {
        let page = store.read(topic, Since::Newest, usize::MAX).await.expect("a page");
        assert!(page.messages == all[topic], "{topic}");
    }
}
