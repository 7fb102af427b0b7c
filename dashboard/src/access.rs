//! [`Access`]: what a visitor may do.

use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, FORWARDED, HOST, HeaderName};
use http::request::Parts;
use http::uri::Authority;

/// What a visitor may do, as [`Dashboard::authorize`](crate::Dashboard::authorize) decides.
///
/// ```
/// use tower_channels_dashboard::Access;
///
/// // The figures and the content of messages, but nobody can be disconnected.
/// let access = Access::VIEW.with_payloads();
/// # let _ = access;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    views: bool,
    payloads: bool,
    disconnects: bool,
    asks: bool,
}

impl Access {
    /// Nothing: HTTP 403.
    pub const NONE: Self = Self { views: false, payloads: false, disconnects: false, asks: false };

    /// Nothing yet: HTTP 401, on which a browser asks for a password. For [`has_password`].
    pub const LOGIN: Self = Self { asks: true, ..Self::NONE };

    /// To see figures, socket ids, topics and presence keys.
    pub const VIEW: Self = Self { views: true, ..Self::NONE };

    /// Everything.
    pub const ALL: Self = Self { views: true, payloads: true, disconnects: true, asks: false };

    /// Allows to see the content of messages on topics, and the metas of presences.
    #[must_use]
    pub const fn with_payloads(self) -> Self {
        Self { payloads: true, ..self }
    }

    /// Allows to disconnect clients.
    #[must_use]
    pub const fn with_disconnects(self) -> Self {
        Self { disconnects: true, ..self }
    }

    pub(crate) fn views(self) -> bool {
        self.views
    }

    pub(crate) fn shows_payloads(self) -> bool {
        self.views && self.payloads
    }

    pub(crate) fn disconnects(self) -> bool {
        self.views && self.disconnects
    }

    pub(crate) fn asks(self) -> bool {
        self.asks
    }
}

/// Returns whether a request carries this password, with any user name: HTTP Basic, for which a browser asks after
/// [`Access::LOGIN`]. An empty password is never right.
///
/// The password is compared in a time that does not depend on it. Attempts are not limited: use a long random one, and TLS.
pub fn has_password(request: &Parts, password: &str) -> bool {
    let given = request.headers.get(AUTHORIZATION).and_then(|header| {
        let (scheme, credentials) = header.to_str().ok()?.split_once(' ')?;
        let credentials = BASE64_STANDARD.decode(credentials.trim()).ok()?;
        let colon = credentials.iter().position(|byte| *byte == b':')?;
        scheme.eq_ignore_ascii_case("basic").then(|| credentials[colon + 1..].to_vec())
    });
    let Some(given) = given.filter(|_| !password.is_empty()) else { return false };
    let expected = password.as_bytes();
    let differences = given.iter().enumerate().fold(0, |differences, (index, byte)| {
        differences | (byte ^ expected[index % expected.len()])
    });
    differences == 0 && given.len() == expected.len()
}

/// Returns whether a request comes from this machine: its peer is loopback, its `Host` names loopback, and no proxy has
/// forwarded it. For development.
///
/// All three are needed. A reverse proxy connects from loopback for everybody; so does the browser of a user whose page, from
/// a host that resolves to loopback, reaches for what only this machine can reach. A proxy that adds none of `Forwarded`,
/// `X-Forwarded-For`, `X-Forwarded-Host`, `X-Real-IP` and `Via` and sets `Host` to loopback is not noticed: behind one, use a
/// password.
pub fn is_local(request: &Parts, peer: SocketAddr) -> bool {
    const FORWARDED_BY: [HeaderName; 5] = [
        FORWARDED,
        HeaderName::from_static("x-forwarded-for"),
        HeaderName::from_static("x-forwarded-host"),
        HeaderName::from_static("x-real-ip"),
        http::header::VIA,
    ];
    let header = request.headers.get(HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    let host = header.or_else(|| request.uri.authority().cloned());
    let is_loopback = |host: Authority| {
        let host = host.host().trim_start_matches('[').trim_end_matches(']');
        let is_address = host.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback());
        is_address || host.eq_ignore_ascii_case("localhost")
    };
    peer.ip().to_canonical().is_loopback()
        && host.is_some_and(is_loopback)
        && !FORWARDED_BY.iter().any(|name| request.headers.contains_key(name))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn request(headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().uri("/dashboard");
        let request = headers.iter().fold(request, |it, (name, value)| it.header(*name, *value));
        request.body(()).expect("a request").into_parts().0
    }

    fn basic(credentials: &str) -> Parts {
        let credentials = format!("Basic {}", BASE64_STANDARD.encode(credentials));
        request(&[("authorization", &credentials)])
    }

    #[test]
    fn a_password_is_right_as_a_whole_with_any_user() {
        for credentials in ["admin:secret", ":secret"] {
            assert!(has_password(&basic(credentials), "secret"), "{credentials}");
        }
        for credentials in
            ["admin:secre", "admin:secrets", "admin:secretsecret", "admin:", "secret", ":x:secret"]
        {
            assert!(!has_password(&basic(credentials), "secret"), "{credentials}");
        }
        assert!(has_password(&basic("a:b:c"), "b:c"));
        assert!(!has_password(&basic("admin:"), ""));
        assert!(!has_password(&request(&[]), "secret"));
        assert!(!has_password(&request(&[("authorization", "Bearer secret")]), "secret"));
        assert!(!has_password(&request(&[("authorization", "Basic ???")]), "secret"));
    }

    #[test]
    fn a_request_is_local_by_its_peer_its_host_and_without_a_proxy() {
        let peer = |address: &str| address.parse().expect("an address");
        let local = peer("127.0.0.1:5000");
        for host in ["localhost", "localhost:4000", "127.0.0.1:4000", "[::1]:4000", "127.9.9.9"] {
            assert!(is_local(&request(&[("host", host)]), local), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", ""] {
            assert!(!is_local(&request(&[("host", host)]), local), "{host}");
        }
        assert!(!is_local(&request(&[]), local));
        assert!(is_local(&request(&[("host", "localhost")]), peer("[::ffff:127.0.0.1]:1")));
        assert!(!is_local(&request(&[("host", "localhost")]), peer("10.0.0.1:5000")));
        for name in ["forwarded", "x-forwarded-for", "x-real-ip", "via"] {
            assert!(!is_local(&request(&[("host", "localhost"), (name, "1.2.3.4")]), local));
        }
    }
}
