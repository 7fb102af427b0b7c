//! Both transports as a Tower layer.

/// What is wrong with a path, for the person who wrote it.
pub(crate) fn validate_path(name: &str, path: &str) -> Result<(), String> {
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(format!("{name} must begin with a slash and not end with one: {path:?}"));
    }
    if path.contains(|c: char| "?#%".contains(c) || c.is_whitespace() || c.is_control()) {
        return Err(format!("{name} must be a plain path: {path:?}"));
    }
    Ok(())
}
