//! Which web pages may connect.

use http::request::Parts;

/// Which web pages may connect.
#[derive(Clone, Debug, Default)]
pub struct CheckOrigin {}

impl CheckOrigin {
    pub(crate) fn allows(&self, _parts: &Parts) -> bool {
        true
    }
}
