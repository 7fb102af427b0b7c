//! The SQL of the example: users, members, messages and files in one SQLite database.

use std::sync::{Arc, Mutex};

use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Params, Result};
use tower_channels::channel;

/// Why a member is not let in: an answer to the client, or a failure, which crashes the channel.
pub(crate) enum AccessError {
    NotAMember,
    Database(rusqlite::Error),
}

impl From<AccessError> for channel::Error {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::NotAMember => Self::reason("not a member"),
            AccessError::Database(error) => error.into(),
        }
    }
}

/// A cheap clone of what all requests and channels share.
#[derive(Clone)]
pub(crate) struct Store(Arc<Mutex<Connection>>);

impl Store {
    /// Opens a file, or a new database with the name `:memory:`.
    pub(crate) fn open(path: &str) -> Result<Self> {
        let db = Connection::open(path)?;
        db.execute_batch(include_str!("schema.sql"))?;
        Ok(Self(Arc::new(Mutex::new(db))))
    }

    /// The number of a user's valid login. A token repeats it, and a logout changes it.
    pub(crate) async fn login(&self, user: &str) -> Result<Option<i64>> {
        self.query("SELECT login FROM users WHERE name = ?1", [user.to_owned()]).await
    }

    pub(crate) async fn end_logins(&self, user: &str) -> Result<Option<i64>> {
        let sql = "UPDATE users SET login = login + 1 WHERE name = ?1 RETURNING login";
        self.query(sql, [user.to_owned()]).await
    }

    pub(crate) async fn authorize(&self, team: &str, user: &str) -> Result<(), AccessError> {
        let sql = "SELECT 1 FROM members WHERE team = ?1 AND user = ?2";
        let member = self.query::<i64>(sql, [team.to_owned(), user.to_owned()]).await;
        member.map_err(AccessError::Database)?.map(|_| ()).ok_or(AccessError::NotAMember)
    }

    /// Returns `None` if there is no such user.
    pub(crate) async fn add_member(&self, team: &str, user: &str) -> Result<Option<i64>> {
        let sql =
            "INSERT OR REPLACE INTO members SELECT ?1, name FROM users WHERE name = ?2 RETURNING 1";
        self.query(sql, [team.to_owned(), user.to_owned()]).await
    }

    pub(crate) async fn add_message(
        &self,
        team: &str,
        author: &str,
        body: &str,
    ) -> Result<Option<i64>> {
        let sql = "INSERT INTO messages VALUES (NULL, ?1, ?2, ?3) RETURNING id";
        self.query(sql, [team.to_owned(), author.to_owned(), body.to_owned()]).await
    }

    pub(crate) async fn count_messages(&self, team: &str) -> Result<Option<i64>> {
        self.query("SELECT count(*) FROM messages WHERE team = ?1", [team.to_owned()]).await
    }

    pub(crate) async fn add_file(
        &self,
        team: &str,
        author: &str,
        content: &[u8],
    ) -> Result<Option<i64>> {
        let sql = "INSERT INTO files VALUES (NULL, ?1, ?2, ?3) RETURNING id";
        self.query(sql, (team.to_owned(), author.to_owned(), content.to_owned())).await
    }

    /// Runs a statement on a blocking thread, because SQLite blocks, and returns its first value.
    async fn query<T: FromSql + Send + 'static>(
        &self,
        sql: &'static str,
        params: impl Params + Send + 'static,
    ) -> Result<Option<T>> {
        let db = Arc::clone(&self.0);
        let query = move || {
            let db = db.lock().expect("no query has panicked");
            db.query_row(sql, params, |row| row.get(0)).optional()
        };
        tokio::task::spawn_blocking(query).await.expect("the query does not panic")
    }
}
