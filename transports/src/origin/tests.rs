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
fn a_request_without_an_origin_is_allowed() {
    assert!(CheckOrigin::default().allows(&request("app.test", None)));
    assert!(CheckOrigin::with(|_, _| false).allows(&request("app.test", None)));
}

#[test]
fn the_same_host_is_allowed_with_any_scheme_and_port() {
    let check = CheckOrigin::default();
    for origin in ["http://app.test:4000", "https://app.test", "HTTP://App.Test:1"] {
        assert!(allows(&check, origin), "{origin}");
    }
}

#[test]
fn another_host_is_rejected() {
    let check = CheckOrigin::default();
    for origin in ["http://example.com", "http://sub.app.test", "http://app.test.evil.com"] {
        assert!(!allows(&check, origin), "{origin}");
    }
}

#[test]
fn an_origin_without_a_valid_host_is_rejected() {
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
fn two_origins_are_rejected() {
    let mut parts = request("app.test", Some("http://app.test"));
    parts.headers.append(ORIGIN, HeaderValue::from_static("http://app.test"));
    assert!(!CheckOrigin::default().allows(&parts));
}

#[test]
fn the_authority_of_the_uri_takes_precedence_over_the_host_header() {
    let mut parts = request("other.test", Some("http://app.test"));
    parts.uri = Uri::from_static("https://app.test/socket/websocket");
    assert!(CheckOrigin::default().allows(&parts));
}

#[test]
fn a_request_without_a_host_matches_no_origin() {
    let check = CheckOrigin::default();
    assert!(!check.allows(&request("", Some("http://app.test"))));
}

#[test]
fn ipv6_hosts_are_compared() {
    let check = CheckOrigin::default();
    assert!(check.allows(&request("[::1]:4000", Some("http://[::1]:4000"))));
    assert!(!check.allows(&request("[::1]:4000", Some("http://[::2]:4000"))));
}

#[test]
fn with_the_check_off_any_origin_is_allowed() {
    let check = CheckOrigin::off();
    assert!(allows(&check, "null") && allows(&check, "http://evil.com"));
}

#[test]
fn a_list_replaces_the_same_host_check_unless_it_is_added() {
    let list = CheckOrigin::hosts(["//localhost"]).unwrap();
    assert!(allows(&list, "http://localhost:3000"));
    assert!(!allows(&list, "http://app.test"));
    assert!(allows(&list.and_same_host(), "http://app.test"));
}

#[test]
fn an_entry_compares_only_what_it_names() {
    for (entry, allowed, rejected) in [
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
        assert!(!allows(&check, rejected), "{entry} {rejected}");
    }
}

#[test]
fn a_wildcard_matches_the_host_and_its_subdomains() {
    let check = CheckOrigin::hosts(["//*.example.com"]).unwrap();
    for origin in ["http://a.example.com", "http://a.b.EXAMPLE.com", "http://example.com"] {
        assert!(allows(&check, origin), "{origin}");
    }
    for origin in ["http://evilexample.com", "http://example.com.evil", "http://com"] {
        assert!(!allows(&check, origin), "{origin}");
    }
}

#[test]
fn an_invalid_entry_is_an_error() {
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
        let error = CheckOrigin::hosts([entry]).unwrap_err().to_string();
        assert!(error.contains("//example.com"), "{entry}: {error}");
    }
}

#[test]
fn a_predicate_sees_the_origin_and_the_request() {
    let check = CheckOrigin::with(|origin, parts| {
        origin.host() == Some("a.test") && parts.headers.contains_key(HOST)
    });
    assert!(allows(&check, "http://a.test"));
    assert!(!allows(&check, "http://b.test"));
}

#[test]
fn null_and_file_are_allowed_by_name_and_nothing_else_with_them() {
    let (null, file) = (CheckOrigin::default().allow_null(), CheckOrigin::default().allow_file());
    assert!(allows(&null, "null") && !allows(&null, "file://"));
    assert!(allows(&file, "file://") && !allows(&file, "null"));
    for check in [&null, &file] {
        assert!(allows(check, "http://app.test"), "{check:?}");
        for origin in ["NULL", "null ", "file:///", "file://evil.test", "http://evil.test", ""] {
            assert!(!allows(check, origin), "{check:?}: {origin}");
        }
    }
    let asked = CheckOrigin::with(|_, _| panic!("asked")).allow_null();
    assert!(allows(&asked, "null"));
    let mut twice = request("app.test", Some("null"));
    twice.headers.append(ORIGIN, HeaderValue::from_static("null"));
    assert!(!null.allows(&twice));
}
