//! Paths at which a transport can be mounted.

use http::uri::PathAndQuery;

/// Returns whether a request can have exactly this path: one or more non-empty segments, each after
/// a slash. Router patterns such as `/{id}` are not paths.
pub(crate) fn is_path(path: &str) -> bool {
    let segments = path.strip_prefix('/').unwrap_or_default().split('/');
    segments.map(str::len).all(|len| len > 0)
        && !path.contains(['*', '{', '}'])
        && path.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.path() == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_that_a_request_can_have() {
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
