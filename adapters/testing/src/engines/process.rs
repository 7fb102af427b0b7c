//! [`Process`]: an engine's process, which ends with the test.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Runs the engine, prints its process id, and signals it as it is told to. When its input ends, which it also does when the process of the tests
/// is killed, it kills the engine.
const KEEPER: &str = r#"
trap '' HUP INT TERM
"$@" >>log 2>&1 </dev/null &
echo $!
while read -r signal; do
    kill -s "$signal" $!
    echo
done
kill -s KILL $!
wait $!
"#;

/// A running process. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    keeper: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    id: String,
}

impl Process {
    /// Starts a program in a folder, where what it prints is appended to the file `log`.
    pub(super) fn start(program: &Path, arguments: &[&str], folder: &Path) -> Self {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let input = keeper.stdin.take();
        let mut output = keeper.stdout.take().expect("it is piped");
        let (mut id, mut byte) = (String::new(), [0]);
        while output.read_exact(&mut byte).is_ok() && byte != *b"\n" {
            id.push(char::from(byte[0]));
        }
        Self { keeper, input, output, id }
    }

    /// The CPU time that its threads have used.
    pub(super) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id)).into_iter().flatten();
        let used = tasks.flatten().filter_map(|task| {
            let statistics = fs::read_to_string(task.path().join("schedstat")).ok()?;
            statistics.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(used.sum())
    }

    /// Sends a signal, such as `STOP` or `CONT`. It is sent when this returns.
    pub(super) fn signal(&mut self, signal: &str) {
        let mut input = self.input.as_ref().expect("it is open until the drop");
        writeln!(input, "{signal}").expect("the keeper reads");
        self.output.read_exact(&mut [0]).expect("the keeper answers");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.keeper.wait();
    }
}
