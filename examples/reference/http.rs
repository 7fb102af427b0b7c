//! Plain HTTP next to the socket.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tower_channels::{Endpoint, Payload};

use super::User;

type Result = std::result::Result<Response<Full<Bytes>>, hyper::Error>;

/// Answers a request that is not the socket's.
pub async fn plain(request: Request<Incoming>, endpoint: Endpoint<User>) -> Result {
    let (head, body) = request.into_parts();
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/health") => respond(StatusCode::OK, "ok"),
        (&Method::GET, "/nodes") => {
            let nodes = endpoint.nodes();
            let nodes = nodes.iter().filter(|node| node.is_up).map(|node| {
                json!({
                    "id": node.id.to_string(),
                    "self": node.is_self,
                    "sessions": node.sessions,
                    "draining": node.is_draining,
                })
            });
            respond_json(&nodes.collect())
        }
        (&Method::GET, "/sessions") => {
            let sessions = endpoint.sessions();
            let (connected, detached) = (sessions.connected, sessions.detached);
            respond_json(&json!({ "connected": connected, "detached": detached }))
        }
        // Browsers send a form or a text to any site, and the origin with it.
        (&Method::POST, "/broadcast" | "/disconnect")
            if endpoint.acceptor().check_origin(&head).is_err() =>
        {
            respond(StatusCode::FORBIDDEN, "")
        }
        (&Method::POST, "/broadcast") => {
            let body = Limited::new(body, 1 << 20).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let Ok(BroadcastRequest { topic, event, payload }) = serde_json::from_slice(&body)
            else {
                return respond(StatusCode::BAD_REQUEST, "");
            };
            let Ok(payload) = Payload::json(&payload) else {
                return respond(StatusCode::BAD_REQUEST, "");
            };
            endpoint.broadcast(&topic, &event, payload);
            respond(StatusCode::NO_CONTENT, "")
        }
        (&Method::POST, "/disconnect") => {
            let query = head.uri.query().unwrap_or_default();
            for (_, id) in form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "id")
            {
                endpoint.disconnect(&id);
            }
            respond(StatusCode::NO_CONTENT, "")
        }
        _ => respond(StatusCode::NOT_FOUND, ""),
    }
}

#[derive(Deserialize)]
struct BroadcastRequest {
    topic: String,
    event: String,
    payload: Box<RawValue>,
}

fn respond(status: StatusCode, body: &'static str) -> Result {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    Ok(response)
}

fn respond_json(value: &Value) -> Result {
    let mut response = Response::new(Full::from(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("a header"));
    Ok(response)
}
