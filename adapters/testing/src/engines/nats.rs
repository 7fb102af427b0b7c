//! [`NatsServer`]: NATS, alone or as a cluster.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::process::Process;
use super::{free_port, loopback, program, until};
use crate::folder::Folder;

/// How a server is started.
#[derive(Clone, Debug, Default)]
#[must_use = "it does nothing until it is started"]
pub struct NatsConfig {
    lines: Vec<String>,
}

impl NatsConfig {
    /// Creates the configuration of a server that lets everyone in.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets in one user alone.
    pub fn user(self, name: &str, password: &str) -> Self {
        self.line(&format!("authorization {{ user: {name:?}, password: {password:?} }}"))
    }

    /// Enables JetStream.
    pub fn jetstream(self) -> Self {
        self.line("jetstream { store_dir: \"jetstream\" }")
    }

    /// Adds a line to the server's configuration.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// Starts the server, and waits until it answers. `None` if its program is missing: the variable `NATS_SERVER`.
    ///
    /// # Panics
    /// If it does not answer, or if its program is missing and `CI` is set.
    pub async fn start(self) -> Option<NatsServer> {
        let program = program("NATS_SERVER")?;
        let folder = Folder::new();
        let (address, monitor) = (loopback(free_port()), loopback(free_port()));
        let mut lines = self.lines;
        lines.extend([format!("listen: \"{address}\""), format!("http: \"{monitor}\"")]);
        fs::write(folder.path().join("nats.conf"), lines.join("\n")).expect("written");
        let mut server = NatsServer { program, address, monitor, process: None, folder };
        server.restart().await;
        Some(server)
    }

    /// Starts servers that are one cluster.
    pub async fn start_cluster<const N: usize>(self) -> Option<[NatsServer; N]> {
        let routes: [SocketAddr; N] = std::array::from_fn(|_| loopback(free_port()));
        let mut servers = Vec::with_capacity(N);
        for (number, mine) in routes.iter().enumerate() {
            let others = routes.iter().filter(|route| *route != mine);
            let others: Vec<_> = others.map(|route| format!("nats://{route}")).collect();
            let cluster = format!(
                "cluster {{ name: test, listen: \"{mine}\", no_advertise: true, routes: {others:?} }}"
            );
            // JetStream asks for names.
            let config = self.clone().line(&format!("server_name: server{number}")).line(&cluster);
            servers.push(config.start().await?);
        }
        for server in &servers {
            until("a cluster", async || {
                (server.variable("routes").await.ok()? >= N - 1).then_some(())
            })
            .await;
        }
        servers.try_into().ok()
    }
}

/// A server that was started, and is killed when this is dropped.
#[derive(Debug)]
pub struct NatsServer {
    program: PathBuf,
    address: SocketAddr,
    monitor: SocketAddr,
    /// Above the folder, which is removed after it has ended.
    process: Option<Process>,
    folder: Folder,
}

impl NatsServer {
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

    /// Copies the files of JetStream, between a [`kill`](Self::kill) and a [`restart`](Self::restart).
    pub fn save(&self) {
        self.folder.replace("saved", "jetstream");
    }

    /// Puts the copy in place of the files.
    pub fn restore(&mut self) {
        self.folder.replace("jetstream", "saved");
    }

    /// Starts it again after a [`kill`](Self::kill), and waits until it answers.
    pub async fn restart(&mut self) {
        self.process =
            Some(Process::start(&self.program, &["-c", "nats.conf"], self.folder.path()));
        until(&format!("{} answers", self.program.display()), async || {
            let log = self.folder.log();
            assert!(!log.contains("address already in use"), "{log}");
            greeting(self.address).await.ok()
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

    /// How many clients are connected.
    ///
    /// # Panics
    /// If the server does not answer, with what it has logged.
    pub async fn connections(&self) -> usize {
        let count = self.variable("connections").await;
        count.unwrap_or_else(|error| panic!("{error}\n{}", self.folder.log()))
    }

    /// A number in what the server says about itself.
    async fn variable(&self, name: &str) -> io::Result<usize> {
        let mut stream = TcpStream::connect(self.monitor).await?;
        stream.write_all(b"GET /varz HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let field = format!("\"{name}\": ");
        let number = answer.split_once(&field).and_then(|(_, rest)| {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            rest[..end].parse().ok()
        });
        number.ok_or_else(|| io::Error::other(format!("no {name} in {answer}")))
    }
}

/// Waits for what a server says first.
async fn greeting(address: SocketAddr) -> io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    if line.starts_with("INFO ") { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
