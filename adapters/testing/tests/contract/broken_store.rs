//! [`BrokenStore`]: the records of an adapter with a defect.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use tower_channels::adapter::{Adapter, BoxFuture, Record, Replaced, Revision, Store, StoreError};

use crate::broken::Defect::{self, *};

/// The records of another adapter, with a defect.
#[derive(Debug)]
pub(crate) struct BrokenStore {
    defect: Defect,
    /// So that the adapter ends when it is dropped.
    inner: Weak<dyn Adapter>,
    /// The newest record that was seen or written of each key.
    known: Mutex<HashMap<String, Option<Record>>>,
}

impl BrokenStore {
    pub(crate) fn new(defect: Defect, inner: Weak<dyn Adapter>) -> Self {
        Self { defect, inner, known: Mutex::default() }
    }

    fn inner(&self) -> Arc<dyn Adapter> {
        self.inner.upgrade().expect("it is used while the adapter is there")
    }

    /// Waits for ever in the place of an error, if that is the defect.
    async fn wait<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match result {
            Err(_) if self.defect == WaitsForTheEngine => pending().await,
            result => result,
        }
    }

    /// Shows the same revision again and again, if that is the defect.
    fn shown(&self, record: Record) -> Record {
        if self.defect != RepeatsRevisions {
            return record;
        }
        Record { revision: Revision(0), ..record }
    }
}

impl Store for BrokenStore {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            let known = self.known.lock().unwrap().get(key).cloned();
            if let Some(known) = known
                && self.defect == AnswersFromMemory
            {
                return Ok(known);
            }
            let inner = self.inner();
            let read = inner.store().expect("it has one").read(key).await;
            let record = self.wait(read).await?;
            self.known.lock().unwrap().insert(key.to_owned(), record.clone());
            Ok(record.map(|record| self.shown(record)))
        })
    }

    fn replace<'a>(
        &'a self,
        key: &'a str,
        seen: Option<Revision>,
        value: Option<Bytes>,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Replaced, StoreError>> {
        Box::pin(async move {
            let inner = self.inner();
            let store = inner.store().expect("it has one");
            let is_blind = match self.defect {
                OverwritesRecords => true,
                RemovesBlindly => value.is_none(),
                RepeatsRevisions => seen.is_some(),
                _ => false,
            };
            let seen =
                if is_blind { store.read(key).await?.map(|there| there.revision) } else { seen };
            let value = match self.defect {
                CutsValues => value.map(|value| value.slice(..value.len().min(100_000))),
                _ => value,
            };
            let ttl = if self.defect == ForgetsNothing { Duration::MAX } else { ttl };
            let replaced = self.wait(store.replace(key, seen, value.clone(), ttl).await).await?;
            Ok(match replaced {
                Replaced::Yes(revision) => {
                    let record = value.map(|value| Record { value, revision });
                    self.known.lock().unwrap().insert(key.to_owned(), record);
                    let of_none = Record { value: Bytes::new(), revision };
                    Replaced::Yes(self.shown(of_none).revision)
                }
                Replaced::No(_) if self.defect == ShowsNothing => Replaced::No(None),
                Replaced::No(there) => Replaced::No(there.map(|record| self.shown(record))),
            })
        })
    }
}
