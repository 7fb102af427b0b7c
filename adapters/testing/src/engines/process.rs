//! [`Process`]: an engine's process, which ends with the test.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Runs the engine and signals it as it is told to. When its input ends, which it also does when the process of the tests
/// is killed, it kills the engine.
const KEEPER: &str = r#"
trap '' HUP INT TERM
"$@" >>log 2>&1 </dev/null &
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
        let output = keeper.stdout.take().expect("it is piped");
        Self { keeper, input, output }
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
