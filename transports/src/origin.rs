//! Which web pages may connect. Browsers name the page's origin in every WebSocket handshake and in
//! every request from another site; whoever is no browser may leave it out and is let in.

use std::fmt;
use std::sync::Arc;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Uri};

/// Which web pages may connect.
///
/// By default those of the same host: the host in `Origin` is the one the request was sent to,
/// whatever the scheme and the port. Hosts are compared without regard to case. A request without
/// `Origin` passes; `null`, `file://` and anything that names no host does not.
///
/// ```
/// use tower_channels_transports::CheckOrigin;
///
/// let check = CheckOrigin::hosts(["https://example.com", "//*.example.org"])?.and_same_host();
/// # Ok::<(), String>(())
/// ```
#[derive(Clone)]
pub struct CheckOrigin {
    same_host: bool,
    rule: Rule,
}

#[derive(Clone)]
enum Rule {
    Hosts(Arc<[Allowed]>),
    With(Arc<Check>),
    Off,
}

type Check = dyn Fn(&Uri, &Parts) -> bool + Send + Sync;

/// One entry of an allow list. What is `None` is not compared.
#[derive(Debug, PartialEq, Eq)]
struct Allowed {
    scheme: Option<String>,
    host: String,
    /// Whether `host` stands for itself and all hosts below it.
    wildcard: bool,
    port: Option<u16>,
}

impl CheckOrigin {
    /// Any page may connect. Right only where a connection needs more than cookies to do harm.
    pub fn off() -> Self {
        Self { same_host: false, rule: Rule::Off }
    }

    /// The pages of these origins, and no others: as in Phoenix the list replaces the check for the
    /// same host, unless [`and_same_host`](Self::and_same_host) adds it again.
    ///
    /// | entry | allows |
    /// | --- | --- |
    /// | `//example.com` | that host, any scheme, any port |
    /// | `//example.com:888` | that host and port |
    /// | `https://example.com` | that scheme and host, on the scheme's own port |
    /// | `https://example.com:8443` | exactly that |
    /// | `//*.example.com` | `example.com` and every host below it |
    ///
    /// The error says which entry cannot be read, and how it should look.
    pub fn hosts<I>(entries: I) -> Result<Self, String>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let allowed = entries.into_iter().map(|entry| Allowed::parse(entry.as_ref()));
        Ok(Self { same_host: false, rule: Rule::Hosts(allowed.collect::<Result<_, _>>()?) })
    }

    /// The pages whose origin `check` allows. It sees the origin, which has a scheme and a host,
    /// and the head of the request.
    pub fn with(check: impl Fn(&Uri, &Parts) -> bool + Send + Sync + 'static) -> Self {
        Self { same_host: false, rule: Rule::With(Arc::new(check)) }
    }

    /// The pages of the same host too.
    pub fn and_same_host(mut self) -> Self {
        self.same_host = true;
        self
    }

    /// Whether a request may go on.
    pub(crate) fn allows(&self, parts: &Parts) -> bool {
        if let Rule::Off = self.rule {
            return true;
        }
        let mut origins = parts.headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => true,
            (Some(origin), None) => {
                parse_origin(origin).is_some_and(|origin| self.allows_origin(&origin, parts))
            }
            // No browser sends two, and another reader of this request may take the other one.
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
        Self { same_host: true, rule: Rule::Hosts(Arc::new([])) }
    }
}

impl fmt::Debug for CheckOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule: &dyn fmt::Debug = match &self.rule {
            Rule::Hosts(allowed) => allowed,
            Rule::With(_) => &"a function",
            Rule::Off => &"off",
        };
        f.debug_struct("CheckOrigin")
            .field("same_host", &self.same_host)
            .field("rule", rule)
            .finish()
    }
}

impl Allowed {
    fn parse(entry: &str) -> Result<Self, String> {
        Self::read(entry).ok_or_else(|| {
            format!(
                "origin {entry:?} cannot be read: it should look like \"//example.com\", \
                 \"https://example.com\", \"https://example.com:8443\" or \"//*.example.com\""
            )
        })
    }

    fn read(entry: &str) -> Option<Self> {
        let (scheme, authority) = entry.split_once("//")?;
        let scheme = match scheme.strip_suffix(':') {
            // http::Uri knows what a scheme may be spelt with.
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

/// An origin is a scheme, a host and perhaps a port (RFC 6454 section 7), and nothing else.
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

/// A host and perhaps a port; no user, and no colon without a port that can be one.
fn is_host(authority: &Authority) -> bool {
    let host = authority.host();
    let port = &authority.as_str()[host.len().min(authority.as_str().len())..];
    !host.is_empty()
        && authority.as_str().starts_with(host)
        && (port.is_empty() || authority.port_u16().is_some())
}

/// Where the request was sent: HTTP/2 and absolute URIs say it there, HTTP/1 in `Host`.
fn requested_host(parts: &Parts) -> Option<Authority> {
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
mod tests {
    use http::Request;

    use super::*;

    fn request(host: &str, origin: Option<&str>) -> Parts {
        let mut request = Request::builder().uri("/socket/websocket").header(HOST, host);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn allows(check: &CheckOrigin, origin: &str) -> bool {
        check.allows(&request("app.test:4000", Some(origin)))
    }

    #[test]
    fn without_an_origin_anyone_may_connect() {
        assert!(CheckOrigin::default().allows(&request("app.test", None)));
        assert!(CheckOrigin::with(|_, _| false).allows(&request("app.test", None)));
    }

    #[test]
    fn the_same_host_may_connect_with_any_scheme_and_port() {
        let check = CheckOrigin::default();
        for origin in ["http://app.test:4000", "https://app.test", "HTTP://App.Test:1"] {
            assert!(allows(&check, origin), "{origin}");
        }
    }

    #[test]
    fn another_host_may_not_connect() {
        let check = CheckOrigin::default();
        for origin in ["http://example.com", "http://sub.app.test", "http://app.test.evil.com"] {
            assert!(!allows(&check, origin), "{origin}");
        }
    }

    #[test]
    fn what_names_no_host_may_not_connect() {
        let anything = CheckOrigin::with(|_, _| true);
        for origin in [
            "null",
            "garbage",
            "",
            "file://",
            "file:///",
            "http://",
            "http://:80",
            "//app.test",
            "app.test",
            "app.test:4000",
            "http://app.test/path",
            "http://app.test?q",
            "http://app.test#f",
            "http://me@app.test",
            "http://app.test:",
            "http://app.test:99999",
            "://app.test",
            "http:// app.test",
            "http://app.test, http://app.test",
            "é",
        ] {
            let mut parts = request("app.test:4000", None);
            parts.headers.insert(ORIGIN, HeaderValue::from_bytes(origin.as_bytes()).unwrap());
            assert!(!anything.allows(&parts), "{origin}");
        }
    }

    #[test]
    fn two_origins_are_refused() {
        let mut parts = request("app.test", Some("http://app.test"));
        parts.headers.append(ORIGIN, HeaderValue::from_static("http://app.test"));
        assert!(!CheckOrigin::default().allows(&parts));
    }

    #[test]
    fn the_authority_of_the_uri_goes_before_the_host_header() {
        let mut parts = request("other.test", Some("http://app.test"));
        parts.uri = Uri::from_static("https://app.test/socket/websocket");
        assert!(CheckOrigin::default().allows(&parts));
    }

    #[test]
    fn a_request_without_a_host_has_no_same_host() {
        let check = CheckOrigin::default();
        assert!(!check.allows(&request("", Some("http://app.test"))));
    }

    #[test]
    fn ipv6_hosts_compare() {
        let check = CheckOrigin::default();
        assert!(check.allows(&request("[::1]:4000", Some("http://[::1]:4000"))));
        assert!(!check.allows(&request("[::1]:4000", Some("http://[::2]:4000"))));
    }

    #[test]
    fn switched_off_anything_passes() {
        let check = CheckOrigin::off();
        assert!(allows(&check, "null") && allows(&check, "http://evil.com"));
    }

    #[test]
    fn a_list_replaces_the_same_host_unless_it_is_asked_for() {
        let list = CheckOrigin::hosts(["//localhost"]).unwrap();
        assert!(allows(&list, "http://localhost:3000"));
        assert!(!allows(&list, "http://app.test"));
        assert!(allows(&list.and_same_host(), "http://app.test"));
    }

    #[test]
    fn an_entry_compares_what_it_names() {
        for (entry, allowed, refused) in [
            ("//Example.com", "https://EXAMPLE.com:1", "https://example.org"),
            ("//example.com:888", "http://example.com:888", "http://example.com"),
            ("https://example.com", "https://example.com", "http://example.com"),
            ("https://example.com", "https://example.com:443", "https://example.com:444"),
            ("https://example.com:8443", "https://example.com:8443", "https://example.com"),
            ("HTTPS://example.com", "https://example.com:443", "https://example.com:80"),
            ("https://example.com", "HTTPS://example.com", "HTTP://example.com"),
            ("//[::1]", "http://[::1]:5", "http://[::2]"),
            ("capacitor://localhost", "capacitor://localhost", "http://localhost"),
        ] {
            let check = CheckOrigin::hosts([entry]).unwrap();
            assert!(allows(&check, allowed), "{entry} {allowed}");
            assert!(!allows(&check, refused), "{entry} {refused}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_the_host_and_all_below() {
        let check = CheckOrigin::hosts(["//*.example.com"]).unwrap();
        for origin in ["http://a.example.com", "http://a.b.EXAMPLE.com", "http://example.com"] {
            assert!(allows(&check, origin), "{origin}");
        }
        for origin in ["http://evilexample.com", "http://example.com.evil", "http://com"] {
            assert!(!allows(&check, origin), "{origin}");
        }
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_an_error() {
        for entry in [
            "",
            "example.com",
            "//",
            "https://",
            "//*",
            "//*.",
            "//a.*.com",
            "//example.com/path",
            "//me@example.com",
            "//example.com:",
            "//example.com:99999",
            "https//example.com",
            "://example.com",
            "ht tp://example.com",
            "//exa mple.com",
            "//example.com?x",
            "*",
        ] {
            let error = CheckOrigin::hosts([entry]).unwrap_err();
            assert!(error.contains("//example.com"), "{entry}: {error}");
        }
    }

    #[test]
    fn a_function_sees_the_origin_and_the_request() {
        let check = CheckOrigin::with(|origin, parts| {
            origin.host() == Some("a.test") && parts.headers.contains_key(HOST)
        });
        assert!(allows(&check, "http://a.test"));
        assert!(!allows(&check, "http://b.test"));
    }
}
