//! [`Scripts`]: what the server runs for a history.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Script, Value, cmd};

/// The scripts, each with the name that the server has for it.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(super) open: Script,
    pub(super) append: Script,
    pub(super) read: Script,
    pub(super) find: Script,
    load: Pipeline,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        let texts = [
            include_str!("lua/open.lua"),
            include_str!("lua/append.lua"),
            include_str!("lua/read.lua"),
            include_str!("lua/find.lua"),
        ];
        let [open, append, read, find] = texts.map(Script::new);
        let mut load = Pipeline::with_capacity(texts.len());
        for text in texts {
            load.cmd("SCRIPT").arg("LOAD").arg(text);
        }
        Self { open, append, read, find, load }
    }

    /// Gives them to the server, which forgets them with its process.
    pub(super) async fn load(&self, redis: &mut MultiplexedConnection) -> RedisResult<()> {
        let loaded = redis.send_packed_commands(&self.load, 0, self.load.len()).await?;
        loaded.into_iter().try_for_each(|answer| answer.extract_error().map(drop))
    }
}

/// Begins the command that runs a script, which the server has been given, with as many keys and about as many bytes.
pub(super) fn run(script: &Script, keys: usize, bytes: usize) -> Cmd {
    let mut command = Cmd::with_capacity(16, bytes + 256);
    command.arg("EVALSHA").arg(script.get_hash()).arg(keys);
    command
}

/// Sends a command.
pub(super) async fn send(redis: &mut MultiplexedConnection, command: &Cmd) -> RedisResult<Value> {
    redis.send_packed_command(command).await.and_then(Value::extract_error)
}

/// Sends commands as a transaction. Returns their answers, or the first error. A server without memory takes no transaction;
/// it gets them in their order, with what others send perhaps in between.
pub(super) async fn send_together<const N: usize>(
    redis: &mut MultiplexedConnection,
    commands: [Cmd; N],
) -> RedisResult<Value> {
    let mut transaction = Pipeline::with_capacity(N + 2);
    transaction.cmd("MULTI");
    for command in commands {
        transaction.add_command(command);
    }
    transaction.cmd("EXEC");
    let answers = redis.send_packed_commands(&transaction, 0, N + 2).await?;
    // The last one has the others.
    match answers.into_iter().try_fold(Value::Nil, |_, answer| answer.extract_error()) {
        Err(error) if error.code() == Some("OOM") => {
            let mut pipeline = Pipeline::with_capacity(N);
            for command in transaction.cmd_iter().skip(1).take(N) {
                pipeline.add_command(command.clone());
            }
            let answers = redis.send_packed_commands(&pipeline, 0, N).await?;
            let answers = answers.into_iter().map(Value::extract_error);
            answers.collect::<RedisResult<_>>().map(Value::Array)
        }
        answer => answer,
    }
}

/// Asks for the name of the server's process, which each start draws anew.
pub(super) async fn ask_for_run(redis: &mut MultiplexedConnection) -> RedisResult<String> {
    let mut info = cmd("INFO");
    info.arg("server");
    let text = match send(redis, &info).await? {
        Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::VerbatimString { text, .. } => text,
        _ => String::new(),
    };
    let run = text.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default();
    Ok(run.trim().to_owned())
}
