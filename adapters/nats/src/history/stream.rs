//! [`Settings`]: the stream in which an application's histories are, and how it is found or created.

use std::time::{Duration, SystemTime};

use async_nats::Client;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, Republish, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{Context, ErrorCode};

use super::config::{HistoryConfig, QUIET};
use crate::backoff;
use crate::config::Storage;
use crate::subjects::Subjects;

/// The settings with which a missing stream is created.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    /// Where messages are kept, and where they are handed over.
    subjects: [String; 2],
    history: HistoryConfig,
}

/// A stream that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) epoch: u64,
    /// The last number.
    pub(crate) last: u64,
    /// Whether nothing was ever forgotten but for what a topic has too much of.
    pub(crate) is_whole: bool,
    /// Whether a server may answer that does not know the newest messages.
    pub(crate) has_replicas: bool,
    pub(crate) limits: Limits,
}

/// How much the stream keeps; a history may ask for less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) within: Duration,
}

/// The entry in the stream's metadata that is added to its time of creation, when numbers come again.
const EPOCH: &str = "tower-channels-epoch";

/// For how long a message is recognized when it is sent again: longer than it is waited for.
const DUPLICATES: Duration = Duration::from_secs(10);

/// How many messages of a topic a stream keeps in addition to those that were asked for: the mark, and the message before
/// the oldest one.
const MARKS: usize = 2;

impl Settings {
    pub(crate) fn new(app: &str, subjects: &Subjects, history: &HistoryConfig) -> Self {
        Self {
            name: format!("tc-{app}-history"),
            subjects: subjects.histories(),
            history: history.clone(),
        }
    }

    /// Finds the stream, or creates it. If `seen`, an epoch and a number there, is lost, another epoch begins.
    pub(crate) async fn find(
        &self,
        context: &Context,
        client: &Client,
        seen: Option<(u64, u64)>,
    ) -> Result<Found, String> {
        if !client.is_server_compatible(2, 11, 0) {
            let version = client.server_info().version;
            return Err(format!("version {version} is older than 2.11"));
        }
        let mut info = match self.info(context).await? {
            Some(info) => info,
            None => {
                // Fails if another node is quicker.
                let created = context.create_stream(self.config()).await;
                let missing = || created.err().map_or("it is gone".into(), |it| it.to_string());
                self.info(context).await?.ok_or_else(missing)?
            }
        };
        self.check(&info.config)?;
        if seen.is_some_and(|(epoch, last)| {
            epoch == epoch_of(&info) && info.state.last_sequence < last
        }) {
            let mut config = info.config.clone();
            config.metadata.insert(EPOCH.to_owned(), backoff::random().to_string());
            let updated = context.update_stream(config).await;
            info = updated.map_err(|error| {
                format!("messages are lost, and no other epoch begins: {error}")
            })?;
        }
        Ok(found(&info))
    }

    /// Asks the server about the stream. `None` if it does not exist.
    pub(crate) async fn info(&self, context: &Context) -> Result<Option<Info>, String> {
        match context.get_stream(&self.name).await {
            Ok(stream) => Ok(Some(stream.cached_info().clone())),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                GetStreamErrorKind::Request => {
                    Err(format!("{error}: the server has no JetStream, or does not answer"))
                }
                _ => Err(error.to_string()),
            },
        }
    }

    fn config(&self) -> Config {
        let [kept, copies] = self.subjects.clone();
        let HistoryConfig { storage, replicas, messages, within, max_bytes, .. } = self.history;
        // So that no number comes again if a stream is lost and created anew.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Config {
            name: self.name.clone(),
            description: Some("tower-channels: histories of topics".to_owned()),
            subjects: vec![kept.clone()],
            max_messages_per_subject: clamped(messages.saturating_add(MARKS)),
            max_bytes: clamped(max_bytes),
            max_age: within.saturating_add(QUIET),
            storage: if storage == Storage::File { StorageType::File } else { StorageType::Memory },
            num_replicas: replicas,
            discard: DiscardPolicy::Old,
            duplicate_window: DUPLICATES,
            republish: Some(Republish { source: kept, destination: copies, headers_only: false }),
            allow_direct: true,
            // The oldest of a topic is forgotten first, or not at all.
            deny_delete: true,
            first_sequence: Some(u64::try_from(now.as_micros()).unwrap_or(1).max(1)),
            ..Config::default()
        }
    }

    /// Refuses a stream with which nothing could be promised.
    fn check(&self, config: &Config) -> Result<(), String> {
        let [kept, copies] = &self.subjects;
        let is_handed_over = config
            .republish
            .as_ref()
            .is_some_and(|it| it.source == *kept && it.destination == *copies && !it.headers_only);
        let wanted = if config.subjects != [kept.as_str()] {
            format!("has other subjects than `{kept}`")
        } else if !is_handed_over {
            format!("does not republish `{kept}` to `{copies}`")
        } else if !config.allow_direct {
            "does not allow direct gets".to_owned()
        } else if config.retention != RetentionPolicy::Limits
            || config.discard != DiscardPolicy::Old
        {
            "does not keep messages by limits, or does not discard the oldest".to_owned()
        } else if config.no_ack || config.sealed {
            "is sealed, or does not acknowledge messages".to_owned()
        } else {
            return Ok(());
        };
        Err(format!("the stream {} {wanted}", self.name))
    }
}

/// Identifies the numbers of a stream: another one, also of the same name, has another.
fn epoch_of(info: &Info) -> u64 {
    let created = SystemTime::from(info.created).duration_since(SystemTime::UNIX_EPOCH);
    let created = u64::try_from(created.unwrap_or_default().as_nanos()).unwrap_or_default();
    let later = info.config.metadata.get(EPOCH).and_then(|epoch| epoch.parse().ok());
    created.wrapping_add(later.unwrap_or(0))
}

pub(crate) fn found(info: &Info) -> Found {
    let limit =
        |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(u64::MAX);
    let config = &info.config;
    Found {
        epoch: epoch_of(info),
        last: info.state.last_sequence,
        is_whole: info.state.first_sequence <= config.first_sequence.unwrap_or(1),
        has_replicas: config.num_replicas > 1,
        limits: Limits {
            messages: limit(config.max_messages_per_subject).saturating_sub(MARKS as u64),
            bytes: limit(config.max_bytes),
            within: if config.max_age.is_zero() {
                Duration::MAX
            } else {
                config.max_age.saturating_sub(QUIET)
            },
        },
    }
}

fn clamped(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new("chat", &Subjects::new("chat"), &HistoryConfig::new())
    }

    #[test]
    fn the_stream_that_is_created_is_accepted() {
        let settings = settings();
        let config = settings.config();
        assert_eq!(settings.check(&config), Ok(()));
        assert_eq!(config.name, "tc-chat-history");
        assert!(config.max_age > settings.history.within);
    }

    #[test]
    fn a_stream_that_cannot_keep_the_promise_is_refused_in_words() {
        let settings = settings();
        let reason = |change: fn(&mut Config)| {
            let mut config = settings.config();
            change(&mut config);
            settings.check(&config).unwrap_err()
        };
        assert!(reason(|it| it.subjects.push("more".into())).contains("subjects"));
        assert!(reason(|it| it.republish = None).contains("republish"));
        assert!(
            reason(|it| it.republish.as_mut().unwrap().headers_only = true).contains("republish")
        );
        assert!(reason(|it| it.allow_direct = false).contains("direct"));
        assert!(reason(|it| it.discard = DiscardPolicy::New).contains("oldest"));
        assert!(reason(|it| it.retention = RetentionPolicy::Interest).contains("limits"));
        assert!(reason(|it| it.no_ack = true).contains("acknowledge"));
    }

    #[test]
    fn a_stream_that_is_created_later_begins_with_a_higher_number() {
        let first = settings().config().first_sequence;
        std::thread::sleep(Duration::from_millis(2));
        assert!(first > Some(1 << 50) && settings().config().first_sequence > first);
    }
}
