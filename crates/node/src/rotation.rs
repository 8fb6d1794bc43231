//! Replacing the key that signs events and requests (D2): on command, and by itself after a month.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use messagehub_homeserver::{Homeserver, server};
use messagehub_protocol::keys::VerifyKey;
use tokio::{sync::Mutex, time::MissedTickBehavior};

use crate::{AnyError, data_dir::DataDir};

/// How long a key signs: a month (D2). Four years of such keys fit the list of old ones.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How often the age is looked at; a node that was off looks when it starts.
const LOOK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Replaces keys, one after the other. Cloning gives another handle to the same one.
#[derive(Clone)]
pub(crate) struct Rotation {
    hs: Homeserver,
    data: DataDir,
    rotating: Arc<Mutex<()>>,
}

impl Rotation {
    /// That of a node and its data directory.
    pub(crate) fn new(hs: Homeserver, data: DataDir) -> Self {
        Self { hs, data, rotating: Arc::default() }
    }

    /// Makes a new key, which signs from now on, and gives its id. It is on disk before anything is
    /// signed with it: whatever happens in between, the next start knows what was issued last, and
    /// makes an old key of it.
    pub(crate) async fn rotate(&self) -> Result<String, AnyError> {
        let _one_at_a_time = self.rotating.lock().await;
        let seed = self.data.renew_verify_key()?;
        server::keys::rotate(&self.hs, VerifyKey::from_seed(&seed)).await?;
        Ok(self.hs.identity.verify_key().key_id().to_string())
    }

    /// Replaces each key that is a month old, until `stop` is done.
    pub(crate) async fn run(self, stop: impl Future<Output = ()> + Send) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                _ = looks.tick() => {}
            }
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(self.hs.clock.now_ms());
            if let Err(error) = self.rotate_if_due(now).await {
                tracing::error!(%error, "the key that signs could not be replaced");
            }
        }
    }

    async fn rotate_if_due(&self, now: SystemTime) -> Result<(), AnyError> {
        if self.data.verify_key_age(now)? >= MAX_AGE {
            self.rotate().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use messagehub_protocol::server_keys::KeyValidity;
    use tempfile::TempDir;

    use super::*;
    use crate::{config::Config, wiring};

    async fn started(dir: &TempDir) -> Rotation {
        let data = DataDir::open(Some(dir.path().to_owned())).unwrap();
        let limits = wiring::limits(&Config::default());
        let (hs, _) = wiring::homeserver(&data, &data.seeds().unwrap(), limits).await.unwrap();
        Rotation::new(hs, data)
    }

    fn key_id(rotation: &Rotation) -> String {
        rotation.hs.identity.verify_key().key_id().to_string()
    }

    #[tokio::test]
    async fn a_key_is_replaced_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = started(&dir).await;
        let (first, name) = (key_id(&rotation), rotation.hs.server_name().to_owned());
        let second = rotation.rotate().await.unwrap();
        assert_ne!(first, second);
        assert_eq!(key_id(&rotation), second);
        let issued = rotation.hs.identity.server_keys();
        drop(rotation);

        let again = started(&dir).await;
        assert_eq!((key_id(&again), again.hs.server_name()), (second, &*name));
        assert_eq!(again.hs.identity.server_keys(), issued, "nobody has to learn anything new");
        let at = issued.issued_ts();
        assert!(issued.key_at(&first, at, KeyValidity::Enforced).is_some());
        assert!(issued.current_key(&first).is_none());
    }

    #[tokio::test]
    async fn a_crash_between_the_file_and_the_database_loses_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = started(&dir).await;
        let first = key_id(&rotation);
        rotation.data.renew_verify_key().unwrap();
        drop(rotation);
        let again = started(&dir).await;
        let issued = again.hs.identity.server_keys();
        assert!(issued.current_key(&key_id(&again)).is_some());
        assert!(issued.key_at(&first, issued.issued_ts(), KeyValidity::Enforced).is_some());
    }

    #[tokio::test]
    async fn a_key_is_replaced_after_a_month() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = started(&dir).await;
        let first = key_id(&rotation);
        let made = std::fs::metadata(dir.path().join("verify.key")).unwrap().modified().unwrap();
        rotation.rotate_if_due(made + MAX_AGE - Duration::from_secs(1)).await.unwrap();
        assert_eq!(key_id(&rotation), first);
        rotation.rotate_if_due(made + MAX_AGE).await.unwrap();
        assert_ne!(key_id(&rotation), first);
    }
}
