//! What can go wrong below every use-case.

use std::path::PathBuf;

/// The database failed. Opaque to clients; the text is for the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite refused or failed.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row is there that no code of ours writes.
    #[error("damaged database: {0}")]
    Damaged(String),
    /// The caller broke a rule of the store, such as placing an event twice.
    #[error("misuse of the store: {0}")]
    Misuse(String),
    /// The closure panicked; what it wrote is rolled back.
    #[error("a database operation panicked: {0}")]
    Panicked(String),
    /// The group this write belonged to could not be made durable; nothing of it is kept.
    #[error("commit failed: {0}")]
    Commit(String),
    /// The store is shutting down, or its threads are gone.
    #[error("the store is closed")]
    Closed,
}

/// Why a data directory could not be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Written by a newer program.
    #[error(
        "the database has schema {found}, this program knows up to {known}: use a newer messagehub"
    )]
    Newer {
        /// The schema of the file.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// Not a database, or one whose pages do not fit together.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// A database of some other program.
    #[error("{} is not a messagehub database", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another process has the data directory open.
    #[error("{} is in use by another messagehub", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// No such file, where one was expected.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file would have been overwritten.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// SQLite failed otherwise.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
}
