//! `messagehub run`: start everything, say how to log in, and end in order.

use std::{net::SocketAddr, sync::Arc};

use messagehub_homeserver::{Homeserver, accounts, peers::INBOUND_CAPACITY, user_directory};
use prometheus_client::registry::Registry;
use tokio::{
    runtime::Handle,
    signal,
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    AnyError,
    admin::{self, Admin},
    config::Config,
    data_dir::DataDir,
    listen, metrics, observability, print,
    rotation::Rotation,
    serve, wiring,
};

/// Runs the node until SIGINT or SIGTERM: what other nodes want on `network`, so that clients do not
/// wait for it, and what clients want here.
pub(crate) async fn run(config: &Config, data: &DataDir, network: &Handle) -> Result<(), AnyError> {
    observability::start(config);
    let seeds = data.seeds()?;
    let (hs, outbound) = wiring::homeserver(data, &seeds, wiring::limits(config)).await?;
    create_first_user(&hs, config).await?;
    let clients = listen::CLIENTS.bind(config.listen, data).await?;
    let address = clients.local_addr()?;

    let mut registry = Registry::default();
    metrics::register(&mut registry, &hs);
    let (inbound_tx, inbound) = mpsc::channel(INBOUND_CAPACITY);
    let net = wiring::net_config(config, data, &seeds, hs.server_name());
    let federation = messagehub_api::server::router(hs.clone());
    let start = async move {
        let host = messagehub_net::start(&net, federation, outbound, inbound_tx, &mut registry);
        host.await.map(|host| (host, registry))
    };
    let (host, registry) = network.spawn(start).await??;

    let (stop_tx, stop) = watch::channel(());
    let mut tasks = Tasks { set: JoinSet::new() };
    tasks.set.spawn_on(host.run(ended(stop.clone())), network);
    tasks.set.spawn_on(messagehub_homeserver::run::run(hs.clone(), inbound), network);
    tasks.spawn(serve::serve(
        clients,
        messagehub_api::client::router(hs.clone()),
        ended(stop.clone()),
    ));
    let rotation = Rotation::new(hs.clone(), data.clone());
    tasks.spawn(rotation.clone().run(ended(stop.clone())));
    let admin = Admin {
        hs: hs.clone(),
        registry: Arc::new(registry),
        token: data.renew_admin_token()?.into(),
        rotation,
    };
    // Bound last: whoever finds the admin address finds a node that is ready.
    let listener = listen::ADMIN.bind(config.admin_listen, data).await?;
    tasks.spawn(serve::serve(listener, admin::router(admin), ended(stop)));
    welcome(&hs, config, address).await?;

    let failed = tokio::select! {
        signal = end_signal() => { tracing::info!("{signal} received: stopping"); false }
        () = tasks.any_ends() => { tracing::error!("a part of the node ended: stopping"); true }
    };
    drop(stop_tx);
    serve::finish(tasks.set).await;
    if failed { Err("a part of the node ended early; the log says more".into()) } else { Ok(()) }
}

/// The parts of the node that run side by side. None ends before the node does.
struct Tasks {
    set: JoinSet<()>,
}

impl Tasks {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn(task);
    }

    async fn any_ends(&mut self) {
        if let Some(Err(error)) = self.set.join_next().await {
            tracing::error!(%error, "a part of the node failed");
        }
    }
}

async fn ended(mut stop: watch::Receiver<()>) {
    // The sender is only ever dropped.
    while stop.changed().await.is_ok() {}
}

async fn end_signal() -> &'static str {
    #[cfg(unix)]
    {
        let terminate = signal::unix::signal(signal::unix::SignalKind::terminate());
        if let Ok(mut terminate) = terminate {
            return tokio::select! {
                _ = signal::ctrl_c() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
        }
    }
    if let Err(error) = signal::ctrl_c().await {
        tracing::error!(%error, "signals cannot be received");
    }
    "SIGINT"
}

/// A node without users gets its first.
async fn create_first_user(hs: &Homeserver, config: &Config) -> Result<(), AnyError> {
    if accounts::list(hs).await?.is_empty() {
        accounts::create(hs, &config.first_user, None).await?;
    }
    Ok(())
}

/// Says on standard output who this node is and how to log in.
async fn welcome(hs: &Homeserver, config: &Config, address: SocketAddr) -> Result<(), AnyError> {
    let first = accounts::user_id(&config.first_user, hs.server_name())?;
    let users = accounts::list(hs).await?;
    let user_id = users.iter().find(|id| **id == first).or(users.first()).unwrap_or(&first);
    let names = user_directory::names(hs).await?.join(" or ");
    print(&format!(
        "MessageHub runs.\n\
         \n\
         server name    {}\n\
         found as       {names}\n\
         your user id   {user_id}\n\
         \n\
         To log in, give this address to any Matrix client as its homeserver:\n\
         \n\
         \x20   http://{address}\n\
         \n\
         and choose “Continue with MessageHub”, which works on this machine, or set a password:\n\
         \n\
         \x20   messagehub user password {}\n",
        hs.server_name(),
        user_id.localpart(),
    ))
}
