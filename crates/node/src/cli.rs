//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// A Matrix homeserver that runs on your own device. Its name is its key.
#[derive(Debug, Parser)]
#[command(name = "messagehub", version)]
pub(crate) struct Cli {
    /// Where keys, database and media are kept [default: the platform's data directory].
    #[arg(long, global = true, env = "MESSAGEHUB_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// A configuration file in place of config.json in the data directory.
    #[arg(long, global = true, env = "MESSAGEHUB_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where clients reach the server, such as 127.0.0.1:8008.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,

    /// Who may register: closed, open, or token:TOKEN.
    #[arg(long, global = true, value_name = "WHO")]
    pub(crate) registration: Option<String>,

    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do; running the node where nothing is said.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the node.
    Run,
    /// Print the server name and the names under which users are found.
    Id,
    /// Accounts of this node.
    #[command(subcommand)]
    User(UserCommand),
    /// The keys of this node.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// How the running node is reached, and how it stands with its peers.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// The peers of the running node: path, latency, shared rooms, in sync or not.
    Peers {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Copy the database of a running or stopped node into FILE.
    Backup {
        /// Must not exist yet.
        file: PathBuf,
    },
    /// Look whether the database is sound; changes nothing.
    Check,
}

/// Accounts of this node.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Create an account; the password is asked for on standard input.
    Add {
        /// The part of the user id before the colon.
        localpart: String,
    },
    /// Set the password of an account; asked for on standard input.
    Password {
        /// The part of the user id before the colon.
        localpart: String,
    },
    /// List the accounts.
    List,
}

/// The keys of this node.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Replace the key that signs events and requests, of a running or stopped node. The name of
    /// the server stays.
    Rotate,
}

impl Cli {
    /// Flags that stand for keys of the configuration.
    pub(crate) fn config_flags(&self) -> Vec<(&'static str, String)> {
        let flags = [("listenAddress", &self.listen), ("registration", &self.registration)];
        flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect()
    }
}
