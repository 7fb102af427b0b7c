//! Lists of who is present, and what changed in one.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::meta::Meta;
use super::tracker::{Metas, Snapshot};

/// Keys, such as the ids of users, and how each of them is present.
///
/// As JSON it is what phoenix.js' `Presence` reads: `{"KEY":{"metas":[{"phx_ref":…}]}}`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Presences(BTreeMap<SmolStr, Present>);

/// How one key is present: once for each tab, device or task that tracks it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Present {
    metas: Vec<Meta>,
    /// What the fetch hook adds.
    #[serde(flatten)]
    fetched: Map<String, Value>,
}

/// Who came to a topic, and who went. Of an update the old meta went and the new one came.
#[derive(Clone, Debug, Serialize)]
pub struct PresenceDiff {
    /// Where.
    #[serde(skip)]
    pub topic: String,
    /// Who came.
    pub joins: Presences,
    /// Who went.
    pub leaves: Presences,
}

impl Presences {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How a key is present.
    pub fn get(&self, key: &str) -> Option<&Present> {
        self.0.get(key)
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(SmolStr::as_str)
    }

    /// All keys, in order, and how they are present.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Present)> {
        self.0.iter().map(|(key, present)| (key.as_str(), present))
    }

    /// Adds what the fetch hook said.
    pub(super) fn fetched(&mut self, fetched: &super::config::Fetched) {
        for (key, present) in &mut self.0 {
            if let Some(Value::Object(more)) = fetched.get(key.as_str()) {
                present.fetched.clone_from(more);
                present.fetched.remove("metas");
            }
        }
    }
}

/// Of a key that comes several times, the metas follow each other.
impl FromIterator<(SmolStr, Meta)> for Presences {
    fn from_iter<I: IntoIterator<Item = (SmolStr, Meta)>>(metas: I) -> Self {
        let mut all = Self::default();
        for (key, meta) in metas {
            all.0.entry(key).or_default().metas.push(meta);
        }
        all
    }
}

impl From<&Snapshot> for Presences {
    fn from(snapshot: &Snapshot) -> Self {
        let present = |metas: &Metas| Present {
            metas: metas.iter().cloned().map(Meta::new).collect(),
            fetched: Map::new(),
        };
        Self(snapshot.iter().map(|(key, metas)| (key.clone(), present(metas))).collect())
    }
}

impl Present {
    /// What is said of it, the oldest first.
    pub fn metas(&self) -> &[Meta] {
        &self.metas
    }

    /// What the fetch hook added under a name.
    pub fn fetched(&self, name: &str) -> Option<&Value> {
        self.fetched.get(name)
    }
}
