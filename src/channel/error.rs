//! [`Error`]: what a callback returns when it does not do what it was asked to.

use std::error::Error as StdError;
use std::fmt;

use serde_json::json;
use tower_channels_transports::{excerpt, limited};

use crate::payload::{EventError, InvalidPayload, Payload};
use crate::reply::Reply;

/// The result of a channel's callback.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error returned by the callbacks of a [`Channel`](crate::Channel). It is one of three:
///
/// | | made by | [`handle_in`] | [`join`], [`resume`] | other callbacks |
/// | --- | --- | --- | --- | --- |
/// | a reply | [`reason`](Self::reason), [`reply`](Self::reply), [`OrReply`], an [`InvalidPayload`] | error reply; the channel lives | refuses the client | logged at `debug`; the channel lives |
/// | a stop | [`stop`](Self::stop), [`stop_with`](Self::stop_with) | ends the channel with `phx_close` | refuses the client | as `handle_in` |
/// | a crash | any other error, [`unmatched`](Self::unmatched) | ends the channel with `phx_error`; clients join again | refuses the client with `{"reason":"join crashed"}` | as `handle_in` |
///
/// A refused [`resume`] ends the channel. A crash is logged, once, as an `ERROR`.
///
/// Every error type converts through `?`. An [`InvalidPayload`], also as the source of another error,
/// is a reply, because the client is to blame for it: `{"reason":"invalid payload","detail":"missing
/// field `body` at line 1 column 2"}`. Every other [`std::error::Error`] is a crash. An application's
/// own error type decides for itself with one conversion. It must not implement [`std::error::Error`]
/// then, which would make it a crash.
///
/// ```
/// use tower_channels::channel::Error;
///
/// enum RoomError {
///     Full,
///     Banned,
///     Database(std::io::Error),
/// }
///
/// impl From<RoomError> for Error {
///     fn from(error: RoomError) -> Self {
///         match error {
///             RoomError::Full => Self::reason("the room is full"),
///             RoomError::Banned => Self::stop(),
///             RoomError::Database(error) => error.into(),
///         }
///     }
/// }
/// ```
///
/// [`handle_in`]: crate::Channel::handle_in
/// [`join`]: crate::Channel::join
/// [`resume`]: crate::Channel::resume
#[derive(Debug)]
pub struct Error(pub(crate) Outcome);

/// What an [`Error`] leads to.
#[derive(Debug)]
pub(crate) enum Outcome {
    Reply(Payload),
    Stop(Reply),
    Crash(Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// An error reply with the response `{"reason":reason}`.
    pub fn reason(reason: &str) -> Self {
        Self::reply(json!({ "reason": reason }))
    }

    /// An error reply with this response.
    pub fn reply(response: impl Into<Payload>) -> Self {
        Self(Outcome::Reply(response.into()))
    }

    /// Ends the channel in order: [`Channel::terminate`](crate::Channel::terminate), then
    /// `phx_close`.
    pub fn stop() -> Self {
        Self::stop_with(Reply::None)
    }

    /// Ends the channel in order, after this reply to the push that is being handled. Without a push
    /// the reply is not sent.
    pub fn stop_with(reply: Reply) -> Self {
        Self(Outcome::Stop(reply))
    }

    /// Crashes the channel because of an unknown event, as Phoenix does.
    pub fn unmatched(event: &str) -> Self {
        EventError::Unknown(event.to_owned()).into()
    }

    /// Returns the response to the join that it refuses. Logs a crash.
    pub(super) fn into_refusal(self, topic: &str) -> Payload {
        match self.0 {
            Outcome::Reply(response)
            | Outcome::Stop(Reply::Ok(response) | Reply::Error(response)) => response,
            Outcome::Stop(Reply::None) => Payload::EMPTY,
            Outcome::Crash(error) => {
                limited!(ERROR, ?topic, error = ?excerpt(&error.to_string()), "join crashed");
                join_crashed()
            }
        }
    }
}

/// The response to a join whose channel has crashed.
pub(crate) fn join_crashed() -> Payload {
    json!({ "reason": "join crashed" }).into()
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Error {
    fn from(error: E) -> Self {
        let error = error.into();
        match InvalidPayload::detail_of(&*error) {
            Some(detail) => Self::reply(json!({ "reason": "invalid payload", "detail": detail })),
            None => Self(Outcome::Crash(error)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Outcome::Reply(response) => write!(f, "error reply: {response:?}"),
            Outcome::Stop(_) => f.write_str("the channel stopped"),
            Outcome::Crash(error) => write!(f, "the channel crashed: {error}"),
        }
    }
}

/// Turns what is missing or has failed into an error reply.
///
/// ```
/// use tower_channels::channel::{OrReply, Result};
///
/// fn user(id: Option<u32>) -> Result<String> {
///     let id = id.or_reply("not logged in")?;
///     let users = std::fs::read_to_string("users").or_reply("try again later")?;
///     Ok(users.lines().nth(id as usize).or_reply("no such user")?.to_owned())
/// }
/// # assert!(user(None).unwrap_err().to_string().contains("not logged in"));
/// ```
pub trait OrReply<T> {
    /// Returns the value, or an [`Error`] that replies `{"reason":reason}`. The error that the reply
    /// takes the place of is logged at `debug`.
    ///
    /// # Errors
    /// If there is no value.
    fn or_reply(self, reason: &str) -> Result<T>;
}

impl<T> OrReply<T> for Option<T> {
    fn or_reply(self, reason: &str) -> Result<T> {
        self.ok_or_else(|| Error::reason(reason))
    }
}

impl<T, E: fmt::Display> OrReply<T> for std::result::Result<T, E> {
    fn or_reply(self, reason: &str) -> Result<T> {
        self.map_err(|error| {
            limited!(DEBUG, error = ?excerpt(&error.to_string()), ?reason, "replied with an error");
            Error::reason(reason)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(error: impl Into<Error>) -> Outcome {
        error.into().0
    }

    fn invalid() -> InvalidPayload {
        Payload::EMPTY.parse::<u8>().unwrap_err()
    }

    /// An error of an application that another one has caused.
    #[derive(Debug)]
    struct Wrapper(Box<dyn StdError + Send + Sync>);

    impl fmt::Display for Wrapper {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the database failed")
        }
    }

    impl StdError for Wrapper {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&*self.0)
        }
    }

    #[test]
    fn an_invalid_payload_is_a_reply_and_every_other_error_is_a_crash() {
        let boxed: Box<dyn StdError + Send + Sync> = invalid().into();
        assert!(matches!(outcome(invalid()), Outcome::Reply(_)));
        assert!(matches!(outcome(boxed), Outcome::Reply(_)));
        assert!(matches!(outcome("text"), Outcome::Crash(_)));
        assert!(matches!(outcome(fmt::Error), Outcome::Crash(_)));
        assert!(matches!(Error::unmatched("event").0, Outcome::Crash(_)));
    }

    #[test]
    fn an_invalid_payload_is_a_reply_also_as_the_source_of_another_error() {
        assert!(matches!(outcome(Wrapper(invalid().into())), Outcome::Reply(_)));
        let twice = Wrapper(Wrapper(invalid().into()).into());
        assert!(matches!(outcome(twice), Outcome::Reply(_)));
        assert!(matches!(outcome(Wrapper("text".into())), Outcome::Crash(_)));
        // Such as `anyhow::Error`, which conceals the type that it contains.
        let concealed: Box<dyn StdError + Send + Sync> = invalid().into();
        let source = concealed.source().expect("a source");
        assert!(InvalidPayload::detail_of(source).is_some());
    }

    #[test]
    fn a_refused_join_is_answered_by_what_the_error_says() {
        let refusal = |error: Error| error.into_refusal("room:1");
        assert_eq!(refusal(Error::reason("no")), json!({ "reason": "no" }));
        assert_eq!(refusal(Error::stop()), Payload::EMPTY);
        assert_eq!(refusal(Error::stop_with(Reply::ok(json!(7)))), json!(7));
        assert_eq!(refusal("text".into()), join_crashed());
    }
}
