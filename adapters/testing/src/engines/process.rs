//! [`Process`]: an engine's process, which ends with the test.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Runs the engine, prints its process id and sends it the signals that it reads. Kills the engine when its input ends, also
/// because the process of the tests was killed.
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
    output: BufReader<ChildStdout>,
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
        let mut output = BufReader::new(keeper.stdout.take().expect("it is piped"));
        let mut id = String::new();
        output.read_line(&mut id).expect("the keeper prints it");
        Self { keeper, input, output, id }
    }

    /// The CPU time that its threads have used.
    pub(super) fn cpu(&self) -> Duration {
        let tasks =
            fs::read_dir(format!("/proc/{}/task", self.id.trim_end())).into_iter().flatten();
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
