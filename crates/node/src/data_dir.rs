//! The data directory: three keys, the database, and what is remembered between starts.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rand::{TryRng, rngs::SysRng};

/// Bytes of an Ed25519 seed.
const SEED_BYTES: usize = 32;

/// The file of the key that signs events and requests.
const VERIFY_KEY: &str = "verify.key";

/// A directory that belongs to one node.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    path: PathBuf,
}

/// The three keys of a node (design D3), as seeds.
pub(crate) struct Seeds {
    /// The key that is the server's name.
    pub(crate) identity: [u8; SEED_BYTES],
    /// The key that signs events and requests.
    pub(crate) verify: [u8; SEED_BYTES],
    /// The key that is the PeerId.
    pub(crate) libp2p: [u8; SEED_BYTES],
}

/// What can go wrong with the directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// The platform has no usual place for data.
    #[error("no data directory is known on this system; name one with --data DIR")]
    NoDefault,
    /// Reading or writing failed.
    #[error("{path}: {error}")]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// A key file was not written by this program.
    #[error("{0}: is no key: it must hold 64 hexadecimal digits")]
    BadKey(PathBuf),
}

impl DataDir {
    /// The directory named on the command line, else the platform's; made if it is missing,
    /// for its owner alone.
    pub(crate) fn open(named: Option<PathBuf>) -> Result<Self, DataDirError> {
        let path = match named {
            Some(path) => path,
            None => directories::ProjectDirs::from("", "", "messagehub")
                .map(|dirs| dirs.data_dir().to_owned())
                .ok_or(DataDirError::NoDefault)?,
        };
        let made = fs::create_dir_all(&path).and_then(|()| owner_only_dir(&path));
        made.map_err(|error| DataDirError::Io { path: path.clone(), error })?;
        Ok(Self { path })
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the configuration usually is.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// The keys, created on the first call.
    pub(crate) fn seeds(&self) -> Result<Seeds, DataDirError> {
        Ok(Seeds {
            identity: self.seed("identity.key")?,
            verify: self.seed(VERIFY_KEY)?,
            libp2p: self.seed("libp2p.key")?,
        })
    }

    /// A new key that signs events and requests in place of the old one, which is destroyed.
    pub(crate) fn renew_verify_key(&self) -> Result<[u8; SEED_BYTES], DataDirError> {
        let seed = self.random_seed(VERIFY_KEY)?;
        let path = self.path.join(VERIFY_KEY);
        let failed = |error| DataDirError::Io { path: path.clone(), error };
        let old = OpenOptions::new().write(true).open(&path).map_err(failed)?;
        self.write_owner_only(VERIFY_KEY, &data_encoding::HEXLOWER.encode(&seed))?;
        // The file has no name any more. What a disk keeps of it beside that is beyond us.
        overwrite(old).map_err(failed)?;
        Ok(seed)
    }

    /// How long ago the key that signs was made; nothing where the clock was set back since.
    pub(crate) fn verify_key_age(&self, now: SystemTime) -> Result<Duration, DataDirError> {
        let path = self.path.join(VERIFY_KEY);
        let written = fs::metadata(&path).and_then(|file| file.modified());
        let written = written.map_err(|error| DataDirError::Io { path, error })?;
        Ok(now.duration_since(written).unwrap_or_default())
    }

    /// An address chosen by an earlier start.
    pub(crate) fn remembered_address(&self, name: &str) -> Option<SocketAddr> {
        fs::read_to_string(self.path.join(name)).ok()?.trim().parse().ok()
    }

    /// Keeps an address for the next start and for the other commands of this binary.
    pub(crate) fn remember_address(
        &self,
        name: &str,
        address: SocketAddr,
    ) -> Result<(), DataDirError> {
        self.write_owner_only(name, &address.to_string())
    }

    /// A random secret that whoever can read this directory may show to the admin address, new
    /// with every start.
    pub(crate) fn renew_admin_token(&self) -> Result<String, DataDirError> {
        let token = data_encoding::HEXLOWER.encode(&self.random_seed("admin.token")?);
        self.write_owner_only("admin.token", &token)?;
        Ok(token)
    }

    /// The secret of the running node.
    pub(crate) fn admin_token(&self) -> Option<String> {
        fs::read_to_string(self.path.join("admin.token")).ok()
    }

    fn seed(&self, name: &str) -> Result<[u8; SEED_BYTES], DataDirError> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => data_encoding::HEXLOWER
                .decode(text.trim().as_bytes())
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or(DataDirError::BadKey(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let seed = self.random_seed(name)?;
                self.write_owner_only(name, &data_encoding::HEXLOWER.encode(&seed))?;
                Ok(seed)
            }
            Err(error) => Err(DataDirError::Io { path, error }),
        }
    }

    fn random_seed(&self, name: &str) -> Result<[u8; SEED_BYTES], DataDirError> {
        let mut seed = [0; SEED_BYTES];
        SysRng.try_fill_bytes(&mut seed).map_err(|error| DataDirError::Io {
            path: self.path.join(name),
            error: io::Error::other(error.to_string()),
        })?;
        Ok(seed)
    }

    /// Writes a file that only the owner may read, whole or not at all, and durably.
    fn write_owner_only(&self, name: &str, text: &str) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        let draft = self.path.join(format!("{name}.new"));
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.create(true).truncate(true).write(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            #[cfg(unix)]
            File::open(&self.path)?.sync_all()?;
            Ok(())
        };
        write().map_err(|error| DataDirError::Io { path: path.clone(), error })
    }
}

fn overwrite(mut file: File) -> io::Result<()> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    file.write_all(&vec![b'0'; length])?;
    file.sync_all()
}

#[cfg(unix)]
fn owner_only_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn owner_only_dir(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(Some(dir.path().join("data"))).unwrap();
        let first = data.seeds().unwrap();
        let again = data.seeds().unwrap();
        assert_eq!(first.identity, again.identity);
        assert_ne!(first.identity, first.verify);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(data.path().join("identity.key")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_replaced_key_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(Some(dir.path().to_owned())).unwrap();
        let before = data.seeds().unwrap();
        // Another name of the same file shows what became of its bytes.
        let (file, other) = (dir.path().join(VERIFY_KEY), dir.path().join("other"));
        fs::hard_link(&file, &other).unwrap();
        let seed = data.renew_verify_key().unwrap();
        let after = data.seeds().unwrap();
        assert_eq!((after.verify, after.identity), (seed, before.identity));
        assert_ne!(after.verify, before.verify);
        assert_eq!(fs::read_to_string(other).unwrap(), "0".repeat(64));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn the_age_of_a_key_is_that_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(Some(dir.path().to_owned())).unwrap();
        data.seeds().unwrap();
        let file = File::options().write(true).open(dir.path().join(VERIFY_KEY)).unwrap();
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        file.set_modified(made).unwrap();
        let later = Duration::from_secs(77);
        assert_eq!(data.verify_key_age(made + later).unwrap(), later);
        assert_eq!(data.verify_key_age(made - later).unwrap(), Duration::ZERO);
    }

    #[test]
    fn a_broken_key_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(Some(dir.path().to_owned())).unwrap();
        fs::write(dir.path().join("verify.key"), "nonsense").unwrap();
        assert!(matches!(data.seeds(), Err(DataDirError::BadKey(_))));
        assert_eq!(fs::read_to_string(dir.path().join("verify.key")).unwrap(), "nonsense");
    }
}
