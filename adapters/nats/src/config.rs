//! [`NatsConfig`].

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};

use crate::error::ConnectError;
use crate::history::HistoryConfig;
use crate::records;

/// Where NATS is, and how it is used.
///
/// ```
/// use tower_channels_nats::NatsConfig;
///
/// let config = NatsConfig::new("nats://10.0.0.5:4222").server("nats://10.0.0.6:4222").app("chat");
/// # let _ = config;
/// ```
#[derive(Clone)]
pub struct NatsConfig {
    urls: Vec<String>,
    pub(crate) app: String,
    auth: Auth,
    pub(crate) max_queue: usize,
    pub(crate) max_age: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) propagation: Duration,
    requires_tls: bool,
    tls_first: bool,
    root_certificates: Option<PathBuf>,
    client_certificate: Option<(PathBuf, PathBuf)>,
    record_storage: Storage,
    record_replicas: usize,
    record_max_age: Duration,
    pub(crate) history: HistoryConfig,
}

/// Where NATS keeps records, or histories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// In memory: lost with the server.
    #[default]
    Memory,
    /// In files.
    File,
}

/// How the adapter logs in.
#[derive(Clone)]
enum Auth {
    /// As the url of the server says, if it does.
    Url,
    UserAndPassword(String, String),
    Token(String),
    CredentialsFile(PathBuf),
    Credentials(String),
}

/// How many messages may wait between the connection and the task that delivers them. More are dropped by the client
/// crate, which says so: the link is then given up. In bytes, see [`Backlog`](crate::backlog::Backlog).
const MAX_WAITING: usize = 16_384;

/// The client crate reads as long as there is something to read, 128 times at most, before the task that delivers
/// gets its turn on the same worker. So much must fit into the queue: 1 MiB, which [`MAX_WAITING`] messages of 64
/// bytes exceed.
const READ_BUFFER: u16 = 8192;

impl NatsConfig {
    /// Creates the configuration for a server.
    ///
    /// The url is `nats://user:password@host:port`, `nats://token@host:port`, or `tls://…`, which insists on
    /// TLS; a server that demands TLS gets it in any case. Login and port (4222) are optional. Several urls are
    /// separated by commas. A host name is looked up at each connect.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            urls: vec![url.into()],
            app: "channels".into(),
            auth: Auth::Url,
            max_queue: 8 << 20,
            max_age: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            propagation: Duration::from_millis(20),
            requires_tls: false,
            tls_first: false,
            root_certificates: None,
            client_certificate: None,
            record_storage: Storage::Memory,
            record_replicas: 1,
            record_max_age: Duration::from_secs(3600),
            history: HistoryConfig::default(),
        }
    }

    /// Adds another server of the same NATS cluster. The servers are tried in turn. Those that a server advertises,
    /// but that are not listed, are not used.
    #[must_use]
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// Sets the name of the application: 1 to 64 characters of `A-Za-z0-9_-`. Nodes with the same name in the
    /// same NATS account form a cluster. Default `channels`.
    #[must_use]
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.app = app.into();
        self
    }

    /// Logs in with a user name and a password.
    #[must_use]
    pub fn user_and_password(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.auth = Auth::UserAndPassword(user.into(), password.into());
        self
    }

    /// Logs in with a token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.auth = Auth::Token(token.into());
        self
    }

    /// Logs in with a credentials file (`.creds`), which contains a JWT and a key. It is read at each connect, so
    /// that it may be replaced.
    #[must_use]
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.auth = Auth::CredentialsFile(path.into());
        self
    }

    /// Logs in with the content of a credentials file.
    #[must_use]
    pub fn credentials(mut self, text: impl Into<String>) -> Self {
        self.auth = Auth::Credentials(text.into());
        self
    }

    /// Sets how many bytes of frames may wait to be sent; more are dropped. Default 8 MiB.
    #[must_use]
    pub fn max_queue(mut self, bytes: usize) -> Self {
        self.max_queue = bytes;
        self
    }

    /// Sets how long a frame may wait to be sent; older ones are dropped. Default 5 s.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets how long an attempt to connect to one server may take. Default 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long the servers of a NATS cluster may take to tell each other of a subscription, which they do not
    /// report. A topic counts as heard so much later; what is published within this time by nodes at other servers may
    /// be missed if it is too short. Default 20 ms, for servers in one place. No effect with a single server.
    #[must_use]
    pub fn interest_propagation(mut self, time: Duration) -> Self {
        self.propagation = time;
        self
    }

    /// Insists on TLS with all servers, as `tls://` does with one. Default: what the server demands.
    #[must_use]
    pub fn require_tls(mut self, is_required: bool) -> Self {
        self.requires_tls = is_required;
        self
    }

    /// Begins with the TLS handshake instead of the server's first line, for servers with `handshake_first`.
    /// Default `false`.
    #[must_use]
    pub fn tls_first(mut self, is_first: bool) -> Self {
        self.tls_first = is_first;
        self
    }

    /// Sets a PEM file with the certificates that the server's must be signed by. Default: those that the system
    /// trusts.
    #[must_use]
    pub fn root_certificates_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.root_certificates = Some(path.into());
        self
    }

    /// Sets PEM files with the certificate chain by which the node proves who it is, and with its key. Default none.
    #[must_use]
    pub fn client_certificate_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.client_certificate = Some((certificate.into(), key.into()));
        self
    }

    /// Sets where the bucket of the [records](crate#records) is kept, if there is none yet. Default: in memory.
    #[must_use]
    pub fn record_storage(mut self, storage: Storage) -> Self {
        self.record_storage = storage;
        self
    }

    /// Sets how many servers of a NATS cluster keep a copy of the records, if there is no bucket yet: 1 to 5. Default 1.
    #[must_use]
    pub fn record_replicas(mut self, replicas: usize) -> Self {
        self.record_replicas = replicas;
        self
    }

    /// Sets for how long a record is kept after it was written, if there is no bucket yet. Should be at least the time
    /// for which sessions wait for their clients. Default 1 h.
    #[must_use]
    pub fn record_max_age(mut self, age: Duration) -> Self {
        self.record_max_age = age;
        self
    }

    /// Sets how [histories](crate#histories) are kept.
    #[must_use]
    pub fn history(mut self, history: HistoryConfig) -> Self {
        self.history = history;
        self
    }

    pub(crate) fn records(&self) -> records::Settings {
        records::Settings {
            bucket: format!("tc-{}", self.app),
            max_age: self.record_max_age,
            replicas: self.record_replicas,
            is_in_files: self.record_storage == Storage::File,
        }
    }

    /// Checks the configuration and returns the servers.
    pub(crate) fn servers(&self) -> Result<Vec<ServerAddr>, ConnectError> {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let reason = if !(1..=64).contains(&self.app.len()) || !self.app.bytes().all(is_letter) {
            "`app` must be 1 to 64 characters of `A-Za-z0-9_-`"
        } else if self.max_queue == 0 {
            "`max_queue` must be greater than zero"
        } else if self.connect_timeout.is_zero() {
            "`connect_timeout` must be greater than zero"
        } else if !(1..=5).contains(&self.record_replicas) {
            "`record_replicas` must be 1 to 5"
        } else if self.record_max_age < Duration::from_secs(1) {
            "`record_max_age` must be at least a second"
        } else if let Some(reason) = self.history.invalid() {
            reason
        } else {
            let urls = self.urls.iter().flat_map(|urls| urls.split(',')).map(str::trim);
            return urls.enumerate().map(|(index, url)| parse(index + 1, url)).collect();
        };
        Err(ConnectError::Config(reason.into()))
    }

    /// The options of a connection to `server`, which does not reconnect: a connection that is lost is replaced by
    /// another client, so that nothing is sent late.
    pub(crate) async fn options(
        &self,
        server: &ServerAddr,
    ) -> Result<ConnectOptions, ConnectError> {
        let mut options = ConnectOptions::new()
            .name(format!("tower-channels {}", self.app))
            // Where the user may subscribe.
            .custom_inbox_prefix(format!("tc.{}.i", self.app))
            .connection_timeout(self.connect_timeout)
            .max_reconnects(1)
            .ignore_discovered_servers()
            .subscription_capacity(MAX_WAITING)
            .read_buffer_capacity(READ_BUFFER)
            // All are made here.
            .skip_subject_validation(true)
            .require_tls(self.requires_tls);
        if self.tls_first {
            options = options.tls_first();
        }
        if let Some(path) = &self.root_certificates {
            options = options.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &self.client_certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        let options = match &self.auth {
            Auth::Url => match login(server)? {
                Some((user, Some(password))) => options.user_and_password(user, password),
                Some((token, None)) => options.token(token),
                None => options,
            },
            Auth::UserAndPassword(user, password) => {
                options.user_and_password(user.clone(), password.clone())
            }
            Auth::Token(token) => options.token(token.clone()),
            Auth::CredentialsFile(path) => options
                .credentials_file(path)
                .await
                .map_err(|error| ConnectError::Config(format!("{}: {error}", path.display())))?,
            Auth::Credentials(text) => options
                .credentials(text)
                .map_err(|error| ConnectError::Config(format!("`credentials`: {error}")))?,
        };
        Ok(options)
    }
}

fn parse(number: usize, url: &str) -> Result<ServerAddr, ConnectError> {
    let invalid = |reason: &str| ConnectError::Config(format!("url {number}: {reason}"));
    let server: ServerAddr = url.parse().map_err(|error| invalid(&format!("{error}")))?;
    if server.is_websocket() {
        return Err(invalid("its scheme must be `nats` or `tls`"));
    }
    if server.host().is_empty() {
        return Err(invalid("it has no host"));
    }
    login(&server)?;
    Ok(server)
}

/// The user and the password in a url, or a token.
fn login(server: &ServerAddr) -> Result<Option<(String, Option<String>)>, ConnectError> {
    let decode = |text: &str| {
        let reason = "`%` in the user name or password of a url is written as `%25`";
        percent_decode(text).ok_or_else(|| ConnectError::Config(reason.into()))
    };
    let Some(user) = server.username() else { return Ok(None) };
    Ok(Some((decode(user)?, server.password().map(decode).transpose()?)))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Without urls and secrets.
impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConfig")
            .field("app", &self.app)
            .field("max_queue", &self.max_queue)
            .field("max_age", &self.max_age)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
