//! [`View`]: the presences of a topic, as a client sees them.

use std::collections::BTreeMap;

use serde_json::Value;

/// The metas by their refs, by key.
pub(super) type View = BTreeMap<String, BTreeMap<String, u64>>;

/// Reads a list.
pub(super) fn read(list: &Value) -> View {
    metas(list).collect()
}

/// Applies a diff.
pub(super) fn change(view: &mut View, diff: &Value) {
    for (key, joined) in metas(&diff["joins"]) {
        view.entry(key).or_default().extend(joined);
    }
    for (key, left) in metas(&diff["leaves"]) {
        let Some(metas) = view.get_mut(&key) else { continue };
        metas.retain(|reference, _| !left.contains_key(reference));
        if metas.is_empty() {
            view.remove(&key);
        }
    }
}

fn metas(list: &Value) -> impl Iterator<Item = (String, BTreeMap<String, u64>)> {
    let keys = list.as_object().expect("an object").iter();
    keys.map(|(key, present)| {
        let metas = present["metas"].as_array().expect("a list").iter();
        let meta = |meta: &Value| {
            let reference = meta["phx_ref"].as_str().expect("a ref").to_owned();
            (reference, meta["v"].as_u64().expect("a number"))
        };
        (key.clone(), metas.map(meta).collect())
    })
}
