//! A long-poll client on one connection, with one poll or POST at a time.

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
        let response = http.get(&format!("/socket/longpoll?{parameters}")).await.json();
        assert_eq!(
            (&response["status"], &response["messages"]),
            (&json!(410), &json!([])),
            "{response}"
        );
        let token = token_of(&response);
        Self { http, parameters: parameters.to_owned(), token }
    }

    /// Opens a session of 2.0.0, joins `room:a` under `"1"`, and receives everything.
    pub(crate) async fn member(server: &Server) -> Self {
        let mut session = Self::open(server, "vsn=2.0.0").await;
        session.post(JSON, r#"["1","1","room:a","phx_join",{}]"#).await;
        let got = session.receive(2).await;
        assert_eq!(got[1], r#"["1",null,"room:a","joined",{"user_id":null}]"#);
        session
    }

    /// Opens another connection of the same session, for concurrent requests.
    pub(crate) async fn second_connection(&self, server: &Server) -> Self {
        let (parameters, token) = (self.parameters.clone(), self.token.clone());
        Self { http: Http::connect(server).await, parameters, token }
    }

    /// Polls with the newest token and adopts the token of the response.
    #[track_caller]
    pub(crate) fn poll(&mut self) -> impl Future<Output = Value> {
        soon(self.next())
    }

    /// Polls without a deadline.
    pub(crate) async fn next(&mut self) -> Value {
        self.send_poll().await;
        let response = self.http.response_to("GET").await.expect("a response");
        assert_eq!(response.status, 200, "{response:?}");
        let response = response.json();
        if response["token"].is_string() {
            self.token = token_of(&response);
        }
        response
    }

    /// Polls until that many messages have arrived.
    #[track_caller]
    pub(crate) fn receive(&mut self, count: usize) -> impl Future<Output = Vec<String>> {
        soon(async move {
            let mut got = Vec::new();
            while got.len() < count {
                let response = self.next().await;
                let messages =
                    response["messages"].as_array().unwrap_or_else(|| panic!("{response}"));
                got.extend(messages.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            got
        })
    }

    /// Expects that the session is gone, and connects again as clients do.
    pub(crate) async fn expect_gone(&mut self) {
        assert_eq!(self.poll().await, json!({"status": 500}));
        let before = std::mem::take(&mut self.token);
        let response = self.poll().await;
        assert_eq!(
            (&response["status"], &response["messages"]),
            (&json!(410), &json!([])),
            "{response}"
        );
        assert_ne!(self.token, before, "a new session has a new token");
    }

    /// Returns a connection with a pending poll. Sends two polls, of which the server answers one
    /// and holds the other.
    pub(crate) async fn pending_poll(&self, server: &Server) -> Self {
        let (mut one, mut other) =
            (self.second_connection(server).await, self.second_connection(server).await);
        one.send_poll().await;
        other.send_poll().await;
        let (response, pending) = tokio::select! {
            response = one.response() => (response, other),
            response = other.response() => (response, one),
        };
        assert_eq!(
            (&response["status"], &response["messages"]),
            (&json!(204), &json!([])),
            "{response}"
        );
        pending
    }

    /// Sends a poll without waiting for the response.
    pub(crate) async fn send_poll(&mut self) {
        let target = self.target();
        self.http.send_request("GET", &target, &[], b"").await;
    }

    /// Receives the response to a poll sent by `send_poll`, without adopting its token.
    #[track_caller]
    pub(crate) fn response(&mut self) -> impl Future<Output = Value> {
        let response = soon(self.http.response_to("GET"));
        async { response.await.expect("a response").json() }
    }

    /// Posts a body and returns the whole HTTP response.
    #[track_caller]
    pub(crate) fn post_raw(
        &mut self,
        content_type: &str,
        body: &[u8],
    ) -> impl Future<Output = Response> {
        if content_type == NDJSON {
            corpus::save("ndjson", body);
        }
        soon(async move {
            let headers = [("Content-Type", content_type)];
            self.http.send_request("POST", &self.target(), &headers, body).await;
            self.http.response_to("POST").await.expect("a response")
        })
    }

    /// Posts a body and returns the JSON of the response, which must have HTTP status 200.
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

fn token_of(response: &Value) -> String {
    let token = response["token"].as_str().unwrap_or_else(|| panic!("no token: {response}"));
    corpus::save_some("token", token.as_bytes());
    token.to_owned()
}
