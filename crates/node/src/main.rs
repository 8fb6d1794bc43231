//! `messagehub`: the binary. It reads the configuration, wires the crates together, and turns
//! signals into an orderly end. It knows every other crate and decides nothing about Matrix.

mod accounts;
mod admin;
mod backlog;
mod cli;
mod commands;
mod config;
mod data_dir;
mod listen;
mod metrics;
mod observability;
mod reachability;
mod rotation;
mod run;
mod serve;
mod status;
mod wiring;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::{
    cli::{Cli, Command},
    config::{Config, ConfigFile},
    data_dir::DataDir,
};

/// Any error that ends the program; its text is what the user sees.
type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a command line tool, maybe before logs")]
fn complain(error: &dyn std::error::Error) {
    eprintln!("messagehub: {error}");
}

/// Prints on standard output. Whoever closed the pipe, as `head` does, wants no more of it: that is
/// no error.
fn print(text: &str) -> Result<(), AnyError> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn run(cli: &Cli) -> Result<(), AnyError> {
    let data = DataDir::open(cli.data.clone())?;
    let usual = data.config_file();
    let file = cli.config.as_deref().map_or(ConfigFile::Usual(&usual), ConfigFile::Named);
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let config = Config::load(&file, &environment, &cli.config_flags())?;
    let (clients, network) = (one_thread("clients")?, one_thread("network")?);
    clients.block_on(async {
        match cli.command.as_ref().unwrap_or(&Command::Run) {
            Command::Run => run::run(&config, &data, network.handle()).await,
            Command::Id => commands::id(&data, &config),
            Command::User(command) => commands::user(command, &data).await,
            Command::Status { json } => commands::status(&data, commands::Format::of(*json)).await,
            Command::Peers { json } => commands::peers(&data, commands::Format::of(*json)).await,
            Command::Keys(command) => commands::keys(command, &data).await,
            Command::Backup { file } => commands::backup(&data, file),
            Command::Check => commands::check(&data),
        }
    })
}

/// A runtime whose tasks share one thread. What takes long has threads of its own: SQLite's, and
/// those for passwords and media. With more threads for the rest, each answer wakes a second one
/// that finds nothing to do (decision 9).
fn one_thread(name: &str) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()
}
