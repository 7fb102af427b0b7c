//! [`RedisServer`]: Redis or Valkey, alone, as a cluster, or with Sentinel.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::process::Process;
use super::{free_port, loopback, program, resp, until};
use crate::folder::Folder;

/// Which program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Redis, by the variable `REDIS_SERVER`.
    Redis,
    /// Valkey, by the variable `VALKEY_SERVER`.
    Valkey,
}

/// How a server is started.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is started"]
pub struct RedisConfig {
    kind: Kind,
    password: Option<String>,
    lines: Vec<String>,
}

impl RedisConfig {
    /// Creates the configuration of a server without a password.
    pub fn new(kind: Kind) -> Self {
        Self { kind, password: None, lines: Vec::new() }
    }

    /// Sets the password of the user `default`.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.line(&format!("requirepass {password}"))
    }

    /// Adds a user, such as `user("chat", "secret", "resetchannels &tc:* +@pubsub")`.
    pub fn user(self, name: &str, password: &str, rules: &str) -> Self {
        self.line(&format!("user {name} on >{password} {rules}"))
    }

    /// Adds a line to `redis.conf`.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// Starts the server, and waits until it answers. `None` if its program is missing.
    ///
    /// # Panics
    /// If it does not answer, or if its program is missing and `CI` is set.
    pub async fn start(self) -> Option<RedisServer> {
        self.start_as(&[]).await
    }

    async fn start_as(self, arguments: &'static [&'static str]) -> Option<RedisServer> {
        let program = program(match self.kind {
            Kind::Redis => "REDIS_SERVER",
            Kind::Valkey => "VALKEY_SERVER",
        })?;
        let folder = Folder::new();
        let port = free_port();
        let mut lines = self.lines;
        lines.extend(["bind 127.0.0.1".to_owned(), format!("port {port}")]);
        if arguments.is_empty() {
            lines.extend(["save \"\"".to_owned(), "repl-diskless-sync-delay 0".to_owned()]);
        }
        fs::write(folder.path().join("redis.conf"), lines.join("\n")).expect("written");
        let address = loopback(port);
        let password = self.password;
        let mut server =
            RedisServer { program, arguments, address, password, process: None, folder };
        server.restart().await;
        Some(server)
    }

    /// Starts three servers that are a Redis Cluster: no replicas, all slots assigned, and each connected to the others.
    ///
    /// A server drops its connection to another that is silent for half of `cluster-node-timeout`, and what is published
    /// before the next one is lost. With a minute that takes more than a slow machine.
    pub async fn start_cluster(self) -> Option<[RedisServer; 3]> {
        let config = self.line("cluster-enabled yes").line("cluster-node-timeout 60000");
        let mut servers = Vec::new();
        for number in 0..3_u32 {
            let bus = free_port();
            let config = config.clone().line(&format!("cluster-port {bus}"));
            let server = config.start().await?;
            let (first, last) = (number * 16384 / 3, (number + 1) * 16384 / 3 - 1);
            let epoch = (number + 1).to_string();
            server.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
            server.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
            servers.push((server, bus.to_string()));
        }
        for (server, _) in &servers {
            for (other, bus) in &servers {
                let port = other.address.port().to_string();
                server.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
            }
        }
        let servers: Vec<_> = servers.into_iter().map(|(server, _)| server).collect();
        until("a cluster", async || {
            for server in &servers {
                let state = server.ask(&["CLUSTER", "INFO"]).await;
                let nodes = server.ask(&["CLUSTER", "NODES"]).await;
                let has_all =
                    state.contains("cluster_state:ok") && nodes.trim().lines().count() == 3;
                if !has_all || nodes.contains("handshake") || nodes.contains("disconnected") {
                    return None;
                }
            }
            Some(())
        })
        .await;
        servers.try_into().ok()
    }

    /// Starts a primary with a replica, and a Sentinel that calls the primary `main` and promotes the replica when
    /// the primary is away for a second.
    pub async fn start_sentinel(self) -> Option<Sentinel> {
        let kind = self.kind;
        let auth = self.password.clone();
        let primary = self.clone().start().await?;
        let port = primary.address.port();
        let mut replica = self.line(&format!("replicaof 127.0.0.1 {port}"));
        let mut sentinel = Self::new(kind);
        sentinel = sentinel
            .line(&format!("sentinel monitor main 127.0.0.1 {port} 1"))
            .line("sentinel down-after-milliseconds main 1000")
            .line("sentinel failover-timeout main 5000");
        if let Some(password) = auth {
            replica = replica.line(&format!("masterauth {password}"));
            sentinel = sentinel.line(&format!("sentinel auth-pass main {password}"));
        }
        let replica = replica.start().await?;
        until("a replica", async || {
            let state = replica.ask(&["INFO", "replication"]).await;
            state.contains("master_link_status:up").then_some(())
        })
        .await;
        let sentinel = sentinel.start_as(&["--sentinel"]).await?;
        until("a sentinel that knows the replica", async || {
            let replicas = sentinel.ask(&["SENTINEL", "REPLICAS", "main"]).await;
            replicas.contains(&replica.address.port().to_string()).then_some(())
        })
        .await;
        Some(Sentinel { primary, replica, sentinel })
    }
}

/// A primary, its replica, and the Sentinel that watches them.
#[derive(Debug)]
pub struct Sentinel {
    /// The primary, until it is killed.
    pub primary: RedisServer,
    /// The replica, which becomes the primary.
    pub replica: RedisServer,
    /// The Sentinel, which knows them as `main`.
    pub sentinel: RedisServer,
}

/// A server that was started, and is killed when this is dropped.
#[derive(Debug)]
pub struct RedisServer {
    program: PathBuf,
    arguments: &'static [&'static str],
    address: SocketAddr,
    password: Option<String>,
    /// Above the folder, which is removed after it has ended.
    process: Option<Process>,
    folder: Folder,
}

impl RedisServer {
    /// Its address, which it keeps when it is restarted.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The CPU time that it has used since it was started.
    pub fn cpu(&self) -> Duration {
        self.process.as_ref().map(Process::cpu).unwrap_or_default()
    }

    /// Kills it with `SIGKILL`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again after a [`kill`](Self::kill), and waits until it answers. It has forgotten everything.
    pub async fn restart(&mut self) {
        let arguments = [&["redis.conf"], self.arguments].concat();
        self.process = Some(Process::start(&self.program, &arguments, self.folder.path()));
        until(&format!("{} answers", self.program.display()), async || {
            let answer = self.try_ask(&["PING"]).await;
            if answer.is_err() && self.folder.log().contains("Address already in use") {
                panic!("{}", self.folder.log());
            }
            answer.ok()
        })
        .await;
    }

    /// Stops it with `SIGSTOP`: connections stay, nothing is answered.
    pub fn pause(&mut self) {
        self.process.as_mut().expect("it runs").signal("STOP");
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.process.as_mut().expect("it runs").signal("CONT");
    }

    /// Executes a command as the user `default` and returns its answer as text, an array with an element a line.
    ///
    /// # Panics
    /// If the answer is an error, with what the server has logged.
    pub async fn ask(&self, command: &[&str]) -> String {
        let answer = self.try_ask(command).await;
        answer.unwrap_or_else(|error| panic!("{command:?}: {error}\n{}", self.folder.log()))
    }

    async fn try_ask(&self, command: &[&str]) -> std::io::Result<String> {
        match self.password.as_deref() {
            Some(password) => resp::ask(self.address, &[&["AUTH", password], command]).await,
            None => resp::ask(self.address, &[command]).await,
        }
    }

    /// How many clients are connected.
    pub async fn connections(&self) -> usize {
        let clients = self.ask(&["CLIENT", "LIST"]).await;
        // Less the one that asks.
        clients.lines().filter(|line| !line.trim().is_empty()).count() - 1
    }
}
