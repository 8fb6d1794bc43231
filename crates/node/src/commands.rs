//! The commands beside `run`. Those about accounts, keys and peers ask the running node; accounts
//! and keys can also be managed while none runs.

mod ask;

use std::path::Path;

use messagehub_homeserver::Homeserver;
use messagehub_protocol::keys::IdentityKey;

use crate::{
    AnyError, accounts,
    admin::NewPassword,
    cli::{KeysCommand, UserCommand},
    config::Config,
    data_dir::DataDir,
    print,
    rotation::Rotation,
    status::Status,
    wiring,
};

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Human,
    /// For machines.
    Json,
}

impl Format {
    /// What `--json` means.
    pub(crate) fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Human }
    }
}

/// `messagehub id`. Creates the keys where there are none, as the first start would.
pub(crate) fn id(data: &DataDir, config: &Config) -> Result<(), AnyError> {
    let identity = IdentityKey::from_seed(&data.seeds()?.identity);
    let server_name = identity.server_name();
    print(&format!("{server_name}\n@{}:{server_name}", config.first_user))
}

/// `messagehub user …`.
pub(crate) async fn user(command: &UserCommand, data: &DataDir) -> Result<(), AnyError> {
    let running = ask::Running::find(data).await;
    match command {
        UserCommand::Add { localpart } => {
            let password = ask::new_password()?;
            let user_id = match running {
                Some(node) => {
                    node.put(&format!("/users/{localpart}"), &NewPassword { password }).await?
                }
                None => {
                    accounts::add(&stopped(data).await?, localpart, password).await?.to_string()
                }
            };
            print(user_id.trim())?;
        }
        UserCommand::Password { localpart } => {
            let password = ask::new_password()?;
            match running {
                Some(node) => {
                    let path = format!("/users/{localpart}/password");
                    node.put(&path, &NewPassword { password }).await?;
                }
                None => accounts::set_password(&stopped(data).await?, localpart, password).await?,
            }
            print("the password is set")?;
        }
        UserCommand::List => {
            let users = match running {
                Some(node) => serde_json::from_str(&node.get("/users").await?)?,
                None => accounts::list(&stopped(data).await?).await?,
            };
            for user in users {
                print(user.as_str())?;
            }
        }
    }
    Ok(())
}

/// `messagehub keys …`.
pub(crate) async fn keys(command: &KeysCommand, data: &DataDir) -> Result<(), AnyError> {
    match command {
        KeysCommand::Rotate => {
            let key_id = match ask::Running::find(data).await {
                Some(node) => node.put("/keys/rotate", &()).await?,
                None => Rotation::new(stopped(data).await?, data.clone()).rotate().await?,
            };
            print(&format!("this node signs with {} from now on", key_id.trim()))?;
        }
    }
    Ok(())
}

/// The homeserver of a node that does not run: no network, the same store.
async fn stopped(data: &DataDir) -> Result<Homeserver, AnyError> {
    let limits = wiring::limits(&Config::default());
    Ok(wiring::homeserver(data, &data.seeds()?, limits).await?.0)
}

/// `messagehub status`.
pub(crate) async fn status(data: &DataDir, format: Format) -> Result<(), AnyError> {
    show(data, format, Status::human).await
}

/// `messagehub peers`.
pub(crate) async fn peers(data: &DataDir, format: Format) -> Result<(), AnyError> {
    show(data, format, Status::human_peers).await
}

async fn show(
    data: &DataDir,
    format: Format,
    human: fn(&Status) -> String,
) -> Result<(), AnyError> {
    let node = ask::Running::find(data).await.ok_or("no node is running on this data directory")?;
    let json = node.get("/status").await?;
    match format {
        Format::Json => print(json.trim()),
        Format::Human => print(&human(&serde_json::from_str(&json)?)),
    }
}

/// `messagehub backup FILE`.
pub(crate) fn backup(data: &DataDir, file: &Path) -> Result<(), AnyError> {
    messagehub_store::backup::backup(data.path(), file)?;
    print(&format!("the database is copied to {}", file.display()))
}

/// `messagehub check`.
pub(crate) fn check(data: &DataDir) -> Result<(), AnyError> {
    let report = messagehub_store::backup::check(data.path())?;
    if report.is_sound() {
        return print("the database is sound");
    }
    for problem in &report.problems {
        print(problem)?;
    }
    Err("the database is damaged; nothing was changed".into())
}
