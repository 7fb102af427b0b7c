//! The contract of histories, over SQLite.

use tower_channels::adapter::HistoryStore;
use tower_channels_adapter_tests::folder::Folder;
use tower_channels_adapter_tests::histories::Harness;
use tower_channels_sqlite::{Sqlite, SqliteConfig, Synchronous};

struct OnNormal(Folder);

impl Harness for OnNormal {
    async fn start() -> Option<Self> {
        Some(Self(Folder::new()))
    }

    async fn open(&self) -> Box<dyn HistoryStore> {
        Box::new(Sqlite::open(self.0.path().join("history")).expect("opens"))
    }

    async fn forget(&mut self) {
        self.0 = Folder::new();
    }
}

struct OnFull(Folder);

impl Harness for OnFull {
    async fn start() -> Option<Self> {
        Some(Self(Folder::new()))
    }

    async fn open(&self) -> Box<dyn HistoryStore> {
        let config =
            SqliteConfig::new(self.0.path().join("history")).synchronous(Synchronous::Full);
        Box::new(Sqlite::with(config).expect("opens"))
    }

    async fn forget(&mut self) {
        self.0 = Folder::new();
    }
}

mod normal {
    use tower_channels_adapter_tests::histories_contract;

    histories_contract!(super::OnNormal);
}

/// What depends on when a transaction ends.
mod full {
    use tower_channels_adapter_tests::histories_contract;

    histories_contract! { @tests super::OnFull, ()
        messages_of_one_thread_are_kept_in_their_order
        messages_of_fifty_tasks_have_one_order
        a_message_that_is_handed_over_can_be_read
        a_store_that_is_opened_again_has_everything
        what_waits_when_the_store_is_dropped_is_kept
    }
}
