use tower_channels::{Endpoint, test};

use super::*;

pub type Client = test::Client<User>;

pub fn chat() -> Endpoint<User> {
    let history = Store::new(History::in_memory());
    Endpoint::builder(move |info| connect(info, history.clone())).channel::<Room>("room:*").build()
}

pub async fn connected(chat: &Endpoint<User>, secret: &str) -> Client {
    test::connect(chat, &[("secret", secret)]).await.unwrap()
}

pub async fn enter(chat: &Endpoint<User>, secret: &str, name: &str) -> Client {
    let mut person = connected(chat, secret).await;
    response(person.join("room:lobby", json!({ "name": name })).await);
    person
}

pub async fn person(chat: &Endpoint<User>, name: &str) -> Client {
    enter(chat, &format!("the secret of {name}"), name).await
}

pub async fn say(person: &mut Client, body: &str) -> Value {
    response(person.push("room:lobby", "new_msg", json!({ "body": body })).await)
}

async fn next_message(person: &mut Client) -> Value {
    person.expect("message").await.parse().unwrap()
}

fn response(reply: Reply) -> Value {
    match reply {
        Reply::Ok(response) => response.parse().unwrap(),
        other => panic!("not ok: {other:?}"),
    }
}

#[tokio::test]
async fn a_message_reaches_everyone_in_the_room() {
    let chat = chat();
    let (mut ada, mut bob) = (person(&chat, "Ada").await, person(&chat, "Bob").await);
    say(&mut ada, "hello").await;
    for person in [&mut ada, &mut bob] {
        let message = next_message(person).await;
        assert_eq!((&message["name"], &message["body"]), (&json!("Ada"), &json!("hello")));
    }
}

#[tokio::test]
async fn a_join_with_the_last_seen_id_returns_the_missed_messages() {
    let chat = chat();
    let mut ada = person(&chat, "Ada").await;
    let seen = say(&mut ada, "seen").await["change"].clone();
    say(&mut ada, "missed").await;
    let mut bob = connected(&chat, "the secret of Bob").await;
    let join = json!({ "name": "Bob", "last_seen_id": seen });
    let joined = response(bob.join("room:lobby", join).await);
    assert_eq!(joined["reset"], false);
    assert_eq!(joined["messages"].as_array().unwrap().len(), 1);
    assert_eq!(joined["messages"][0]["body"], "missed");
}

#[tokio::test]
async fn a_reaction_is_broadcast_as_the_message_with_the_people_who_reacted() {
    let chat = chat();
    let (mut ada, mut bob) = (person(&chat, "Ada").await, person(&chat, "Bob").await);
    let id = say(&mut ada, "hello").await["id"].clone();
    let react = json!({ "id": id, "emoji": "👍", "on": true });
    response(bob.push("room:lobby", "react", react).await);
    next_message(&mut ada).await;
    let message = next_message(&mut ada).await;
    assert_eq!(message["reactions"][0]["who"][0]["name"], "Bob");
}

#[tokio::test]
async fn nobody_can_delete_the_message_of_another_user() {
    let chat = chat();
    let (mut ada, mut bob) = (person(&chat, "Ada").await, person(&chat, "Bob").await);
    let id = say(&mut ada, "hello").await["id"].clone();
    let reply = bob.push("room:lobby", "delete", json!({ "id": id })).await;
    assert_eq!(reply, Reply::reason("only the author can delete a message"));
}

#[tokio::test]
async fn an_invalid_payload_gets_an_error_reply_and_the_channel_goes_on() {
    let chat = chat();
    let mut ada = person(&chat, "Ada").await;
    for invalid in [json!({ "body": 5 }), json!([]), json!(null), json!({})] {
        let reply = ada.push("room:lobby", "new_msg", invalid).await;
        let Reply::Error(response) = reply else { panic!("not an error: {reply:?}") };
        assert_eq!(response.parse::<Value>().unwrap()["reason"], "invalid payload");
    }
    say(&mut ada, "still here").await;
}

#[tokio::test]
async fn a_join_needs_a_valid_user_name_and_room_name() {
    let chat = chat();
    let mut ada = connected(&chat, "the secret of Ada").await;
    for name in ["", "  ", "a\nb", &"x".repeat(33)] {
        let reply = ada.join("room:lobby", json!({ "name": name })).await;
        assert_eq!(reply, Reply::reason("name must be 1-32 characters"), "{name:?}");
    }
    for topic in ["room:", "room:Lobby", "room:a b", &format!("room:{}", "x".repeat(33))] {
        let reply = ada.join(topic, json!({ "name": "Ada" })).await;
        let why = "room must be 1-32 characters of a-z, 0-9 and -";
        assert_eq!(reply, Reply::reason(why), "{topic:?}");
    }
}

#[tokio::test]
async fn the_length_of_a_message_is_limited() {
    let chat = chat();
    let mut ada = person(&chat, "Ada").await;
    say(&mut ada, &"é".repeat(2000)).await;
    for body in ["", " \n ", "a\0b", &"é".repeat(2001)] {
        let reply = ada.push("room:lobby", "new_msg", json!({ "body": body })).await;
        assert_eq!(reply, Reply::reason("message must be 1-2000 characters"), "{body:?}");
    }
}

#[tokio::test]
async fn a_socket_without_a_secret_is_rejected() {
    assert!(test::connect(&chat(), &[]).await.is_err());
}
