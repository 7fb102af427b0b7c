//! Where a service is mounted.

use http::uri::PathAndQuery;

/// Whether a request can have this path: one or more names, each after a slash. What looks like a
/// router's pattern is none.
pub(crate) fn is_path(path: &str) -> bool {
    let names = path.strip_prefix('/').unwrap_or_default().split('/');
    names.map(str::len).all(|len| len > 0)
        && !path.contains(['*', '{', '}'])
        && path.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.path() == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_a_request_can_have() {
        for path in ["/socket", "/api/v1/socket", "/~ann/a.b", "/%20"] {
            assert!(is_path(path), "{path}");
        }
        for path in ["", "/", "socket", "//", "/a/", "/a//b", "/a b", "/ ", "/a?b", "/a#b", "/a\t"]
        {
            assert!(!is_path(path), "{path}");
        }
        for pattern in ["/{id}", "/*"] {
            assert!(!is_path(pattern), "{pattern}");
        }
    }
}
