//! What clients receive of `lobby:a`, taken apart.

use serde_json::{Value, json};

use super::{Client, Line};

/// Somebody who is in the lobby under the join_ref `"1"`, and has heard of that.
pub(crate) struct Present {
    pub(crate) client: Client,
    /// What it received when it joined.
    pub(crate) state: Value,
    /// How it is present itself.
    pub(crate) meta: Value,
}

impl Present {
    /// Joins; `key` is the user's id. What comes after the reply comes in either order.
    pub(crate) async fn enter(mut client: Client, key: &str, payload: &str) -> Self {
        client.send(&format!(r#"["1","1","lobby:a","phx_join",{payload}]"#)).await;
        let reply = client.recv().await;
        assert!(reply.ends_with(r#","1","lobby:a","phx_reply",{"status":"ok","response":{}}]"#));
        let (state, own) = state_and_own(&[client.recv().await, client.recv().await], key);
        Self { client, state, meta: own }
    }

    /// The next message is this reply.
    pub(crate) async fn expect_ok(&mut self, reference: &str) {
        let ok = r#""lobby:a","phx_reply",{"status":"ok","response":{}}]"#;
        self.client.expect(&format!(r#"["1","{reference}",{ok}"#)).await;
    }

    /// The next message is a diff, and this is it.
    #[track_caller]
    pub(crate) fn diff(&mut self) -> impl Future<Output = Value> {
        let text = self.client.recv();
        async { diff(&text.await) }
    }

    /// Takes another name, and sees to it that all that happened before has been announced: what it
    /// returns is the next diff, and the only thing that comes of it.
    #[track_caller]
    pub(crate) fn rename(&mut self, name: &str) -> impl Future<Output = Value> {
        let rename = format!(r#"["1","r","lobby:a","rename",{{"name":"{name}"}}]"#);
        async move {
            self.client.send(&rename).await;
            self.expect_ok("r").await;
            self.diff().await
        }
    }
}

impl Line {
    /// Joins a lobby that a kept session has not joined before: its own meta.
    pub(crate) async fn enter(&mut self, key: &str) -> Value {
        self.begin_join("1", "lobby:a").await;
        self.expect(&super::line::ok("1", "lobby:a")).await;
        state_and_own(&[self.recv().await, self.recv().await], key).1
    }

    /// The next message is the list.
    #[track_caller]
    pub(crate) fn state(&mut self) -> impl Future<Output = Value> {
        let text = self.recv();
        async {
            let text = text.await;
            let (event, state) = event(&text);
            assert_eq!(event, "presence_state", "{text}");
            state
        }
    }
}

/// What follows the reply of a join, in either order: the state, and a diff of this join alone.
fn state_and_own(messages: &[String; 2], key: &str) -> (Value, Value) {
    let mut both = messages.each_ref().map(|text| event(text));
    both.sort_by_key(|(event, _)| event == "presence_state");
    let [(diff_event, diff), (state_event, state)] = both;
    assert_eq!([&*diff_event, &*state_event], ["presence_diff", "presence_state"], "{messages:?}");
    let own = metas(&state, key).last().expect("its own").clone();
    assert_eq!(diff, joins(key, &[&own]));
    (state, own)
}

/// The event and the payload of a message to the lobby.
pub(crate) fn event(text: &str) -> (String, Value) {
    let (_, reference, topic, event, payload): (Value, Value, String, String, Value) =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((reference, &*topic), (Value::Null, "lobby:a"), "{text}");
    (event, payload)
}

/// The payload of a diff; nothing but these two is in it.
#[track_caller]
pub(crate) fn diff(text: &str) -> Value {
    assert!(text.starts_with("[null,null,"), "a broadcast has no join_ref: {text}");
    let (event, payload) = event(text);
    assert_eq!(event, "presence_diff", "{text}");
    payload
}

/// How a key is present.
#[track_caller]
pub(crate) fn metas<'a>(presences: &'a Value, key: &str) -> &'a [Value] {
    let present = &presences[key];
    let metas = present["metas"].as_array().unwrap_or_else(|| panic!("no {key}: {presences}"));
    assert_eq!(present.as_object().map(serde_json::Map::len), Some(1), "{present}");
    metas
}

/// What names a meta.
#[track_caller]
pub(crate) fn phx_ref(meta: &Value) -> &str {
    let phx_ref = meta["phx_ref"].as_str().unwrap_or_else(|| panic!("no ref: {meta}"));
    let is_url_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    assert!(phx_ref.len() == 16 && phx_ref.bytes().all(is_url_safe), "{phx_ref}");
    phx_ref
}

/// A diff in which only this came.
pub(crate) fn joins(key: &str, metas: &[&Value]) -> Value {
    json!({ "joins": { key: { "metas": metas } }, "leaves": {} })
}

/// A diff in which only this went.
pub(crate) fn leaves(key: &str, metas: &[&Value]) -> Value {
    json!({ "joins": {}, "leaves": { key: { "metas": metas } } })
}

/// A diff of one change, from a meta to another of that name; and the new meta.
#[track_caller]
pub(crate) fn renamed(diff: &Value, key: &str, old: &Value, name: &str) -> Value {
    let new = metas(&diff["joins"], key)[0].clone();
    assert_ne!(phx_ref(&new), phx_ref(old));
    let shape = json!({ "name": name, "phx_ref": new["phx_ref"], "phx_ref_prev": old["phx_ref"] });
    let expected = json!({
        "joins": { key: { "metas": [shape] } },
        "leaves": { key: { "metas": [old] } },
    });
    assert_eq!(*diff, expected);
    new
}
