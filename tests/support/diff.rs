//! The client side of presence.

use serde_json::Value;

/// Applies a diff to a state as phoenix.js does.
pub(crate) fn apply(state: &mut Value, diff: &Value) {
    let state = state.as_object_mut().expect("an object");
    let metas = |present: &Value| present["metas"].as_array().expect("metas").clone();
    for (key, joined) in diff["joins"].as_object().expect("an object") {
        let new = metas(joined);
        let mut all = state.get(key).map(metas).unwrap_or_default();
        all.retain(|meta| !new.iter().any(|new| new["phx_ref"] == meta["phx_ref"]));
        all.extend(new);
        let mut joined = joined.clone();
        joined["metas"] = all.into();
        state.insert(key.clone(), joined);
    }
    for (key, left) in diff["leaves"].as_object().expect("an object") {
        let Some(present) = state.get_mut(key) else { continue };
        let left = metas(left);
        let mut all = metas(present);
        all.retain(|meta| !left.iter().any(|old| old["phx_ref"] == meta["phx_ref"]));
        if all.is_empty() {
            state.remove(key);
        } else {
            present["metas"] = all.into();
        }
    }
}
