//! A long-poll client: one connection, a poll or a POST at a time.

use serde_json::{Value, json};

use super::{Http, Response, Server, corpus, soon};

pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const JSON: &str = "application/json";

pub(crate) struct LongPoll {
    http: Http,
    parameters: String,
    pub(crate) token: String,
}

impl LongPoll {
    /// Opens a session with these parameters.
    pub(crate) async fn open(server: &Server, parameters: &str) -> Self {
        let mut http = Http::connect(server).await;
        let answer = http.get(&format!("/socket/longpoll?{parameters}")).await.json();
        assert_eq!((&answer["status"], &answer["messages"]), (&json!(410), &json!([])), "{answer}");
        let token = token_of(&answer);
        Self { http, parameters: parameters.to_owned(), token }
    }

    /// A session of 2.0.0 with `room:a` joined under `"1"` and nothing left to receive.
    pub(crate) async fn member(server: &Server) -> Self {
        let mut session = Self::open(server, "vsn=2.0.0").await;
        session.post(JSON, r#"["1","1","room:a","phx_join",{}]"#).await;
        let got = session.received(2).await;
        assert_eq!(got[1], r#"["1",null,"room:a","joined",{"user_id":null}]"#);
        session
    }

    /// Another connection of the same session, for two requests at once.
    pub(crate) async fn beside(&self, server: &Server) -> Self {
        let (parameters, token) = (self.parameters.clone(), self.token.clone());
        Self { http: Http::connect(server).await, parameters, token }
    }

    /// Polls, with the newest token, and takes the token of the answer.
    #[track_caller]
    pub(crate) fn poll(&mut self) -> impl Future<Output = Value> {
        soon(self.next())
    }

    /// Polls, however long it takes.
    pub(crate) async fn next(&mut self) -> Value {
        self.begin_poll().await;
        let response = self.http.response_to("GET").await.expect("a response");
        assert_eq!(response.status, 200, "{response:?}");
        let answer = response.json();
        if answer["token"].is_string() {
            self.token = token_of(&answer);
        }
        answer
    }

    /// Polls until that many messages have come.
    #[track_caller]
    pub(crate) fn received(&mut self, count: usize) -> impl Future<Output = Vec<String>> {
        soon(async move {
            let mut got = Vec::new();
            while got.len() < count {
                let answer = self.next().await;
                let messages = answer["messages"].as_array().unwrap_or_else(|| panic!("{answer}"));
                got.extend(messages.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            got
        })
    }

    /// The next poll finds the session gone, and is given another.
    pub(crate) async fn expect_gone(&mut self) {
        let before = self.token.clone();
        let answer = self.poll().await;
        assert_eq!((&answer["status"], &answer["messages"]), (&json!(410), &json!([])), "{answer}");
        assert_ne!(self.token, before, "a new session has a new token");
    }

    /// A poll that the server is known to hold: of two at once it answers one, and keeps the other.
    pub(crate) async fn held_poll(&self, server: &Server) -> Self {
        let (mut one, mut other) = (self.beside(server).await, self.beside(server).await);
        one.begin_poll().await;
        other.begin_poll().await;
        let (answer, held) = tokio::select! {
            answer = one.answer() => (answer, other),
            answer = other.answer() => (answer, one),
        };
        assert_eq!((&answer["status"], &answer["messages"]), (&json!(204), &json!([])), "{answer}");
        held
    }

    /// Sends a poll and does not wait for its answer.
    pub(crate) async fn begin_poll(&mut self) {
        let target = self.target();
        self.http.ask("GET", &target, &[], b"").await;
    }

    /// The answer of a poll that was only begun; the token is left as it is.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> impl Future<Output = Value> {
        let response = soon(self.http.response_to("GET"));
        async { response.await.expect("a response").json() }
    }

    /// Posts a body; the whole response, for those that are no 200.
    #[track_caller]
    pub(crate) fn post_raw(
        &mut self,
        content_type: &str,
        body: &[u8],
    ) -> impl Future<Output = Response> {
        if content_type == NDJSON {
            corpus::keep("ndjson", body);
        }
        soon(async move {
            let headers = [("Content-Type", content_type)];
            self.http.ask("POST", &self.target(), &headers, body).await;
            self.http.response_to("POST").await.expect("a response")
        })
    }

    /// Posts a body; what it says.
    #[track_caller]
    pub(crate) fn post(&mut self, content_type: &str, body: &str) -> impl Future<Output = Value> {
        let response = self.post_raw(content_type, body.as_bytes());
        async {
            let response = response.await;
            assert_eq!(response.status, 200, "{response:?}");
            response.json()
        }
    }

    pub(crate) fn target(&self) -> String {
        format!("/socket/longpoll?{}&token={}", self.parameters, self.token)
    }
}

fn token_of(answer: &Value) -> String {
    let token = answer["token"].as_str().unwrap_or_else(|| panic!("no token: {answer}"));
    corpus::keep_some("token", token.as_bytes());
    token.to_owned()
}
