//! Media on the disk: `media/<first two digits of the hash>/<hash>`.
//!
//! A file appears under its name only when it is complete and on the disk.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::Homeserver;

/// Where unfinished files are.
const UNFINISHED: &str = "unfinished";

/// Writes bytes and gives their hash in hexadecimal. Bytes that are there already are not
/// written again. Acknowledged only when they are durable.
pub(super) async fn write(hs: &Homeserver, bytes: Vec<u8>) -> io::Result<String> {
    let dir = hs.store.media_dir().to_owned();
    let unfinished = dir.join(UNFINISHED).join(hs.rng.alphanumeric(24));
    blocking(move || {
        let sha256 = HEXLOWER.encode(&Sha256::digest(&bytes));
        let path = path(&dir, &sha256);
        if path.try_exists()? {
            return Ok(sha256);
        }
        put(&unfinished, &path, &bytes)?;
        Ok(sha256)
    })
    .await
}

/// Reads the file of a hash that the store gave.
pub(super) async fn read(dir: &Path, sha256: String) -> io::Result<Bytes> {
    let path = path(dir, &sha256);
    blocking(move || fs::read(path).map(Bytes::from)).await
}

/// Puts a file in place in one step: written aside, flushed, renamed.
pub(super) fn put(unfinished: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    for dir in [unfinished.parent(), path.parent()].into_iter().flatten() {
        fs::create_dir_all(dir)?;
    }
    let written = File::create_new(unfinished).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(unfinished, path)) {
        // The file is nobody's; that it cannot be removed either changes nothing.
        drop(fs::remove_file(unfinished));
        return Err(error);
    }
    sync_dir(path)
}

/// Makes a new name durable. Windows cannot open a directory, and needs no such thing.
fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) if cfg!(unix) => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

fn path(dir: &Path, sha256: &str) -> PathBuf {
    let shelf = sha256.get(..2).unwrap_or("00");
    dir.join(shelf).join(sha256)
}

/// Runs disk work on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
