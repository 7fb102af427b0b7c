//! [`RedisConfig`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_channels::adapter::BoxFuture;

use crate::error::ConnectError;
use crate::names;

/// Where Redis is, and how it is used.
///
/// ```
/// use tower_channels_redis::RedisConfig;
///
/// let config = RedisConfig::new("redis://chat:secret@10.0.0.5:6379").app("chat");
/// # let _ = config;
/// ```
#[derive(Clone)]
pub struct RedisConfig {
    pub(crate) address: Address,
    pub(crate) app: String,
    pub(crate) max_queue: usize,
    pub(crate) max_age: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) is_durable: bool,
    #[cfg(feature = "tls")]
    pub(crate) root_certificates: Option<Vec<u8>>,
}

/// Where a server is found. Looked up at each connect.
#[derive(Clone)]
pub(crate) enum Address {
    Url(String),
    /// The url names the master in place of a host.
    Sentinel {
        url: String,
        sentinels: Vec<String>,
    },
    Resolve(Resolve),
}

/// Returns the url of the server.
pub(crate) type Resolve =
    Arc<dyn Fn() -> BoxFuture<'static, Result<String, BoxError>> + Send + Sync>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl RedisConfig {
    /// Creates the configuration for a server, or one of the servers of a Redis Cluster.
    ///
    /// The url is `redis://user:password@host:port`, with `rediss` for TLS (needs the feature `tls`), or
    /// `unix:///path?user=..&pass=..`. User, password and port (6379) are optional. A host name is looked up at
    /// each connect; of several addresses the first that answers is used. The number of a database has no
    /// meaning: Redis delivers messages across them, and records are in database 0.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self::at(Address::Url(url.into()))
    }

    /// Creates the configuration for the master that Sentinels name, asked one after the other at each connect.
    ///
    /// `url` is that of the server, with the name of the master in place of host and port, such as
    /// `redis://user:password@mymaster`; `sentinels` are the urls of the Sentinels, with their own
    /// passwords, such as `redis://10.0.0.5:26379`.
    #[must_use]
    pub fn sentinel<S: Into<String>>(
        url: impl Into<String>,
        sentinels: impl IntoIterator<Item = S>,
    ) -> Self {
        let sentinels = sentinels.into_iter().map(Into::into).collect();
        Self::at(Address::Sentinel { url: url.into(), sentinels })
    }

    /// Creates the configuration for a server whose address changes, or whose password does: `resolve` is
    /// asked for the url at each connect. If it panics, that attempt fails.
    #[must_use]
    pub fn resolve<F, E>(resolve: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self::at(Address::Resolve(Arc::new(move || {
            let url = resolve();
            Box::pin(async move { url.await.map_err(Into::into) })
        })))
    }

    fn at(address: Address) -> Self {
        Self {
            address,
            app: "channels".into(),
            max_queue: 8 << 20,
            max_age: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            is_durable: false,
            #[cfg(feature = "tls")]
            root_certificates: None,
        }
    }

    /// Sets the name of the application: 1 to 64 characters of `A-Za-z0-9_-`. Nodes with the same name on the
    /// same server form a cluster. Default `channels`.
    #[must_use]
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.app = app.into();
        self
    }

    /// Sets how many bytes of frames may wait to be sent, and how many of messages to be kept; more are dropped, or
    /// refused. Default 8 MiB.
    #[must_use]
    pub fn max_queue(mut self, bytes: usize) -> Self {
        self.max_queue = bytes;
        self
    }

    /// Sets how long a frame may wait to be sent, and a message to be kept, while the server is away; then it is dropped.
    /// Default 5 s; 30 s at most for a message to be kept.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets how long an attempt to connect may take, the search for the address included. Default 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Says that the server has everything that it has ever acknowledged, also after it was killed: with
    /// `appendfsync always`, and without a fail-over to a replica. Then the positions of histories outlive its restarts.
    /// By default each start of the server and each fail-over is a gap in all histories, since their last messages may
    /// have been lost. Has to be the same on all nodes.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.is_durable = true;
        self
    }

    /// Sets the certificates, in PEM, that the server's must be signed by. Default: those that the system trusts.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ConnectError> {
        let reason = if !names::is_valid(&self.app) {
            "`app` must be 1 to 64 characters of `A-Za-z0-9_-`"
        } else if self.max_queue == 0 {
            "`max_queue` must be greater than zero"
        } else if self.connect_timeout.is_zero() {
            "`connect_timeout` must be greater than zero"
        } else if matches!(&self.address, Address::Sentinel { sentinels, .. } if sentinels.is_empty())
        {
            "`sentinels` must not be empty"
        } else {
            return Ok(());
        };
        Err(ConnectError::Config(reason.into()))
    }
}

/// Without the urls, which may contain passwords.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("app", &self.app)
            .field("max_queue", &self.max_queue)
            .field("max_age", &self.max_age)
            .field("connect_timeout", &self.connect_timeout)
            .field("is_durable", &self.is_durable)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(config: &RedisConfig) -> String {
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn an_invalid_configuration_is_refused_with_the_option_to_change() {
        let config = || RedisConfig::new("redis://localhost");
        assert_eq!(config().validate(), Ok(()));
        assert!(reason(&config().app("a*")).contains("`app`"));
        assert!(reason(&config().max_queue(0)).contains("`max_queue`"));
        assert!(reason(&config().connect_timeout(Duration::ZERO)).contains("`connect_timeout`"));
        let sentinels: [&str; 0] = [];
        assert!(reason(&RedisConfig::sentinel("redis://m", sentinels)).contains("`sentinels`"));
    }

    #[test]
    fn a_password_is_not_printed() {
        let printed = format!("{:?}", RedisConfig::new("redis://user:secret@localhost"));
        assert!(!printed.contains("secret"), "{printed}");
    }
}
