//! The notation of the scenarios, which is that of 2.0.0, and its translation to 1.0.0. A join may have a sixth element.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Version;

/// Encodes a message as a client of that version does.
pub(crate) fn outgoing(version: Version, message: &str) -> String {
    let ([join_ref, reference, topic, event, payload], named) = split(message);
    match version {
        Version::V2 => message.to_owned(),
        Version::V1 => {
            let named = named.map_or_else(String::new, |named| {
                let field = named.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
                format!(",{}", field.expect("an object"))
            });
            let join_ref = match join_ref {
                "null" => String::new(),
                join_ref => format!(r#","join_ref":{join_ref}"#),
            };
            format!(
                r#"{{"topic":{topic},"event":{event},"payload":{payload},"ref":{reference}{join_ref}{named}}}"#
            )
        }
    }
}

/// Translates a message received by a client of that version into the notation. 1.0.0 has no
/// join_ref, so it becomes null. Panics if the encoding deviates from the protocol in any byte.
pub(crate) fn incoming(version: Version, text: &str) -> String {
    let (message, encoded) = match version {
        Version::V2 => {
            let [join_ref, reference, topic, event, payload] = elements(text);
            let message = format!("[{join_ref},{reference},{topic},{event},{payload}]");
            (message.clone(), message)
        }
        Version::V1 => {
            let parts: V1<'_> = serde_json::from_str(text).unwrap_or_else(|error| {
                panic!("{error}: not a message of 1.0.0: {text}");
            });
            let [reference, event, payload, topic] =
                [parts.reference, parts.event, parts.payload, parts.topic].map(RawValue::get);
            (
                format!("[null,{reference},{topic},{event},{payload}]"),
                format!(
                    r#"{{"ref":{reference},"event":{event},"payload":{payload},"topic":{topic}}}"#
                ),
            )
        }
    };
    assert_eq!(text, encoded, "the encoding of the envelope");
    message
}

/// Returns the part of a message that a client of that version can see.
pub(crate) fn visible(version: Version, message: &str) -> String {
    let [_, reference, topic, event, payload] = elements(message);
    match version {
        Version::V2 => message.to_owned(),
        Version::V1 => format!("[null,{reference},{topic},{event},{payload}]"),
    }
}

fn split(message: &str) -> ([&str; 5], Option<&str>) {
    match serde_json::from_str::<[&RawValue; 6]>(message) {
        Ok([five @ .., named]) => (five.map(RawValue::get), Some(named.get())),
        Err(_) => (elements(message), None),
    }
}

fn elements(message: &str) -> [&str; 5] {
    let elements: [&RawValue; 5] = serde_json::from_str(message)
        .unwrap_or_else(|error| panic!("{error}: not five elements: {message}"));
    elements.map(RawValue::get)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct V1<'a> {
    #[serde(borrow, rename = "ref")]
    reference: &'a RawValue,
    #[serde(borrow)]
    event: &'a RawValue,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow)]
    topic: &'a RawValue,
}

#[test]
fn a_message_is_translated_for_1_0_0_and_back() {
    let message = r#"["1","2","room:a","ping",{"a": 1}]"#;
    assert_eq!(
        outgoing(Version::V1, message),
        r#"{"topic":"room:a","event":"ping","payload":{"a": 1},"ref":"2","join_ref":"1"}"#
    );
    assert_eq!(
        outgoing(Version::V1, r#"["1","2","log:a","phx_join",{},{"after":"E.1"}]"#),
        r#"{"topic":"log:a","event":"phx_join","payload":{},"ref":"2","join_ref":"1","after":"E.1"}"#
    );
    assert_eq!(
        incoming(Version::V1, r#"{"ref":"2","event":"ping","payload":{"a": 1},"topic":"room:a"}"#),
        visible(Version::V1, message)
    );
}

#[test]
#[should_panic(expected = "the encoding of the envelope")]
fn an_envelope_with_blanks_is_rejected() {
    incoming(Version::V2, r#"["1", "2","room:a","ping",{}]"#);
}
