//! The origin check: which web pages may connect. Browsers send the page's `Origin` with every
//! WebSocket handshake and every cross-origin request whose answer the page can read; other clients may
//! leave it out.

use std::fmt;
use std::sync::Arc;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Uri};

use crate::error::ConfigError;

/// Decides which web pages may connect, by the `Origin` header of the request.
///
/// By default only pages of the same host may: the host in `Origin` must equal the one that the
/// request was sent to, with any scheme and port. Hosts are compared case-insensitively. A request
/// without `Origin` is allowed; a value without a host is rejected, unless
/// [`allow_null`](Self::allow_null) or [`allow_file`](Self::allow_file) allows it.
///
/// ```
/// use tower_channels_transports::CheckOrigin;
///
/// let check = CheckOrigin::hosts(["https://example.com", "//*.example.org"])?.and_same_host();
/// # Ok::<(), tower_channels_transports::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct CheckOrigin {
    same_host: bool,
    null: bool,
    file: bool,
    rule: Rule,
}

#[derive(Clone)]
enum Rule {
    Hosts(Arc<[Allowed]>),
    With(Arc<Check>),
    Off,
}

type Check = dyn Fn(&Uri, &Parts) -> bool + Send + Sync;

/// One entry of an allow list. `None` matches anything.
#[derive(Debug, PartialEq, Eq)]
struct Allowed {
    scheme: Option<String>,
    host: String,
    /// Whether the subdomains of `host` match, too.
    wildcard: bool,
    port: Option<u16>,
}

impl CheckOrigin {
    /// Allows every page. Safe only if `connect` does not rely on cookies.
    #[must_use]
    pub fn off() -> Self {
        Self::new(Rule::Off)
    }

    /// Allows the pages of these origins and no others: as in Phoenix, the list replaces the check
    /// for the same host, unless [`and_same_host`](Self::and_same_host) adds it again.
    ///
    /// | entry | allows |
    /// | --- | --- |
    /// | `//example.com` | that host, any scheme and port |
    /// | `//example.com:888` | that host and port, any scheme |
    /// | `https://example.com` | that scheme and host, on the scheme's default port |
    /// | `https://example.com:8443` | exactly that origin |
    /// | `//*.example.com` | `example.com` and all its subdomains |
    ///
    /// # Errors
    /// If an entry has none of these forms.
    pub fn hosts<I>(entries: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let allowed = entries.into_iter().map(|entry| Allowed::parse(entry.as_ref()));
        Ok(Self::new(Rule::Hosts(allowed.collect::<Result<_, _>>()?)))
    }

    /// Allows the pages for which `check` returns `true`. It is given the origin, which always has
    /// a scheme and a host, and the head of the request. A request in which it panics is answered with
    /// status 500.
    #[must_use]
    pub fn with(check: impl Fn(&Uri, &Parts) -> bool + Send + Sync + 'static) -> Self {
        Self::new(Rule::With(Arc::new(check)))
    }

    fn new(rule: Rule) -> Self {
        Self { same_host: false, null: false, file: false, rule }
    }

    /// Also allows the pages of the same host.
    #[must_use]
    pub fn and_same_host(mut self) -> Self {
        self.same_host = true;
        self
    }

    /// Also allows the origin `null`: pages without an origin of their own, such as a file, a `data:` URL or
    /// a sandboxed frame. Any site can embed such a frame, so this is safe only if `connect` does not rely
    /// on cookies.
    #[must_use]
    pub fn allow_null(mut self) -> Self {
        self.null = true;
        self
    }

    /// Also allows the origin `file://`, which the web views of desktop and mobile applications send for
    /// pages of their own. No site can send it.
    #[must_use]
    pub fn allow_file(mut self) -> Self {
        self.file = true;
        self
    }

    /// Returns whether a request with this head is allowed. For a transport,
    /// [`Acceptor::check_origin`](crate::Acceptor::check_origin) does this.
    ///
    /// # Panics
    /// If the check given to [`with`](Self::with) panics.
    pub fn allows(&self, parts: &Parts) -> bool {
        if let Rule::Off = self.rule {
            return true;
        }
        let mut origins = parts.headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => true,
            (Some(origin), None) => match origin.as_bytes() {
                b"null" => self.null,
                b"file://" => self.file,
                _ => parse_origin(origin).is_some_and(|origin| self.allows_origin(&origin, parts)),
            },
            // Browsers never send two, and another reader of this request may take the other one.
            (Some(_), Some(_)) => false,
        }
    }

    fn allows_origin(&self, origin: &Uri, parts: &Parts) -> bool {
        let same_host = || match (origin.host(), requested_host(parts)) {
            (Some(host), Some(requested)) => host.eq_ignore_ascii_case(requested.host()),
            _ => false,
        };
        self.same_host && same_host()
            || match &self.rule {
                Rule::Hosts(allowed) => allowed.iter().any(|allowed| allowed.matches(origin)),
                Rule::With(check) => check(origin, parts),
                Rule::Off => true,
            }
    }
}

impl Default for CheckOrigin {
    fn default() -> Self {
        Self::new(Rule::Hosts(Arc::new([]))).and_same_host()
    }
}

impl fmt::Debug for CheckOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule: &dyn fmt::Debug = match &self.rule {
            Rule::Hosts(allowed) => allowed,
            Rule::With(_) => &"predicate",
            Rule::Off => &"off",
        };
        f.debug_struct("CheckOrigin")
            .field("same_host", &self.same_host)
            .field("null", &self.null)
            .field("file", &self.file)
            .field("rule", rule)
            .finish()
    }
}

impl Allowed {
    fn parse(entry: &str) -> Result<Self, ConfigError> {
        Self::read(entry).ok_or_else(|| {
            ConfigError::new(format!(
                "origin {entry:?} must look like \"//example.com\", \"https://example.com\", \
                 \"https://example.com:8443\" or \"//*.example.com\""
            ))
        })
    }

    fn read(entry: &str) -> Option<Self> {
        let (scheme, authority) = entry.split_once("//")?;
        let scheme = match scheme.strip_suffix(':') {
            // `http::Uri` checks the characters of the scheme.
            Some(scheme) => Some(parse_uri(&format!("{scheme}://x"))?.scheme_str()?.to_owned()),
            None if scheme.is_empty() => None,
            None => return None,
        };
        let (host, wildcard) = match authority.strip_prefix("*.") {
            Some(host) => (host, true),
            None => (authority, false),
        };
        let authority = host.parse::<Authority>().ok()?;
        let well_formed = is_host(&authority) && !authority.host().contains('*');
        let port = match authority.port_u16() {
            None => scheme.as_deref().and_then(default_port),
            port => port,
        };
        well_formed.then(|| Self { scheme, host: authority.host().to_owned(), wildcard, port })
    }

    fn matches(&self, origin: &Uri) -> bool {
        let scheme = origin.scheme_str().unwrap_or_default();
        let host = origin.host().unwrap_or_default();
        let port = origin.port_u16().or_else(|| default_port(scheme));
        self.scheme.as_deref().is_none_or(|allowed| allowed.eq_ignore_ascii_case(scheme))
            && self.port.is_none_or(|allowed| port == Some(allowed))
            && self.matches_host(host)
    }

    fn matches_host(&self, host: &str) -> bool {
        if host.eq_ignore_ascii_case(&self.host) {
            return true;
        }
        let Some(cut) = host.len().checked_sub(self.host.len()).filter(|_| self.wildcard) else {
            return false;
        };
        let (below, above) = host.as_bytes().split_at(cut);
        below.ends_with(b".") && above.eq_ignore_ascii_case(self.host.as_bytes())
    }
}

/// Parses an origin: a scheme, a host and an optional port (RFC 6454 section 7), nothing else.
fn parse_origin(origin: &HeaderValue) -> Option<Uri> {
    parse_uri(origin.to_str().ok()?)
}

fn parse_uri(text: &str) -> Option<Uri> {
    let uri = text.parse::<Uri>().ok()?;
    let scheme = uri.scheme_str().is_some_and(|scheme| !scheme.is_empty());
    let host = uri.authority().is_some_and(is_host);
    let bare = uri.path_and_query().is_none_or(|path| path == "/") && !text.contains('#');
    (scheme && host && bare).then_some(uri)
}

/// Returns whether this is a host with an optional valid port, without user information.
fn is_host(authority: &Authority) -> bool {
    let host = authority.host();
    let port = &authority.as_str()[host.len().min(authority.as_str().len())..];
    !host.is_empty()
        && authority.as_str().starts_with(host)
        && (port.is_empty() || authority.port_u16().is_some())
}

/// Returns the host that the request was sent to: the authority of the URI (HTTP/2 and absolute
/// URIs), or else the `Host` header.
pub(crate) fn requested_host(parts: &Parts) -> Option<Authority> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => parts.headers.get(HOST)?.to_str().ok()?.parse().ok(),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    let is = |other| scheme.eq_ignore_ascii_case(other);
    if is("http") || is("ws") {
        Some(80)
    } else if is("https") || is("wss") {
        Some(443)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
