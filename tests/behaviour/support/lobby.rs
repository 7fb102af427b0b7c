//! Clients of `lobby:a`, and the presence messages that they receive.

use serde_json::{Value, json};

use super::{Client, Connection};

/// A member of the lobby with the join_ref `"1"` that has received its own join.
pub(crate) struct Member {
    pub(crate) client: Client,
    /// The state received after the join.
    pub(crate) state: Value,
    /// Its own meta.
    pub(crate) meta: Value,
}

impl Member {
    /// Joins as the user `key`. State and diff may follow the reply in either order.
    pub(crate) async fn join(mut client: Client, key: &str, payload: &str) -> Self {
        client.send(&format!(r#"["1","1","lobby:a","phx_join",{payload}]"#)).await;
        let reply = client.recv().await;
        assert!(reply.ends_with(r#","1","lobby:a","phx_reply",{"status":"ok","response":{}}]"#));
        let (state, own) = state_and_own(&[client.recv().await, client.recv().await], key);
        Self { client, state, meta: own }
    }

    /// Expects an ok reply next.
    pub(crate) async fn expect_ok(&mut self, reference: &str) {
        let ok = r#""lobby:a","phx_reply",{"status":"ok","response":{}}]"#;
        self.client.expect(&format!(r#"["1","{reference}",{ok}"#)).await;
    }

    /// Receives the next message, which must be a diff.
    #[track_caller]
    pub(crate) fn diff(&mut self) -> impl Future<Output = Value> {
        let text = self.client.recv();
        async { diff(&text.await) }
    }

    /// Renames itself and returns the diff, which may come before the reply. Fails if anything else is received first, so
    /// all earlier changes must have been announced.
    #[track_caller]
    pub(crate) fn rename(&mut self, name: &str) -> impl Future<Output = Value> {
        let rename = format!(r#"["1","r","lobby:a","rename",{{"name":"{name}"}}]"#);
        async move {
            self.client.send(&rename).await;
            let [first, second] = [self.client.recv().await, self.client.recv().await];
            let (reply, change) =
                if first.contains("phx_reply") { (first, second) } else { (second, first) };
            let ok = r#","r","lobby:a","phx_reply",{"status":"ok","response":{}}]"#;
            assert!(reply.ends_with(ok), "{reply}");
            diff(&change)
        }
    }
}

impl Connection {
    /// Joins the lobby for the first time in this session, and returns its own meta.
    pub(crate) async fn join_lobby(&mut self, key: &str) -> Value {
        self.begin_join("1", "lobby:a").await;
        self.expect(&super::connection::ok("1", "lobby:a")).await;
        state_and_own(&[self.recv().await, self.recv().await], key).1
    }

    /// Receives the next message, which must be the state.
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

/// Returns the state and the own meta from the two messages after a join: the state and a diff of
/// this join alone, in either order.
fn state_and_own(messages: &[String; 2], key: &str) -> (Value, Value) {
    let mut both = messages.each_ref().map(|text| event(text));
    both.sort_by_key(|(event, _)| event == "presence_state");
    let [(diff_event, diff), (state_event, state)] = both;
    assert_eq!([&*diff_event, &*state_event], ["presence_diff", "presence_state"], "{messages:?}");
    let own = metas(&state, key).last().expect("its own meta").clone();
    assert_eq!(diff, joins(key, &[&own]));
    (state, own)
}

/// Returns the event and payload of a message of the lobby.
pub(crate) fn event(text: &str) -> (String, Value) {
    let (_, reference, topic, event, payload): (Value, Value, String, String, Value) =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((reference, &*topic), (Value::Null, "lobby:a"), "{text}");
    (event, payload)
}

/// Returns the payload of a diff.
#[track_caller]
pub(crate) fn diff(text: &str) -> Value {
    assert!(text.starts_with("[null,null,"), "a broadcast has no join_ref: {text}");
    let (event, payload) = event(text);
    assert_eq!(event, "presence_diff", "{text}");
    payload
}

/// Returns the metas of a key.
#[track_caller]
pub(crate) fn metas<'a>(presences: &'a Value, key: &str) -> &'a [Value] {
    let present = &presences[key];
    let metas = present["metas"].as_array().unwrap_or_else(|| panic!("no {key}: {presences}"));
    assert_eq!(present.as_object().map(serde_json::Map::len), Some(1), "{present}");
    metas
}

/// Returns the ref of a meta.
#[track_caller]
pub(crate) fn phx_ref(meta: &Value) -> &str {
    let phx_ref = meta["phx_ref"].as_str().unwrap_or_else(|| panic!("no ref: {meta}"));
    let is_url_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    assert!(phx_ref.len() == 16 && phx_ref.bytes().all(is_url_safe), "{phx_ref}");
    phx_ref
}

/// A diff with nothing but this join.
pub(crate) fn joins(key: &str, metas: &[&Value]) -> Value {
    json!({ "joins": { key: { "metas": metas } }, "leaves": {} })
}

/// A diff with nothing but this leave.
pub(crate) fn leaves(key: &str, metas: &[&Value]) -> Value {
    json!({ "joins": {}, "leaves": { key: { "metas": metas } } })
}

/// Checks that the diff contains one change, of `old` to a meta with the given name, and returns
/// that meta.
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
