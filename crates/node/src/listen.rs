//! Binding the addresses clients and tools use: what was asked for or an error, else the first
//! of the usual addresses that is free, remembered for the next start (design D18).

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::{
    config::ListenAddress,
    data_dir::{DataDir, DataDirError},
};

/// An address this node serves HTTP on.
pub(crate) struct Purpose {
    /// Key of the configuration.
    key: &'static str,
    /// File of the data directory that keeps the address.
    file: &'static str,
    /// Tried in this order, before any free port of 127.0.0.1.
    usual: [SocketAddr; 3],
}

/// The Client-Server API. 127.84.48.2 keeps it on an origin of its own, apart from web clients.
pub(crate) const CLIENTS: Purpose = Purpose {
    key: "listenAddress",
    file: "listen.address",
    usual: [at([127, 84, 48, 2], 80), at([127, 84, 48, 2], 8008), at([127, 0, 0, 1], 8008)],
};

/// Health, metrics, and the other commands of this binary.
pub(crate) const ADMIN: Purpose = Purpose {
    key: "admin.listenAddress",
    file: "admin.address",
    usual: [at([127, 84, 48, 3], 8008), at([127, 84, 48, 3], 8009), at([127, 0, 0, 1], 8009)],
};

const fn at(ip: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3])), port)
}

/// Why there is no address to listen on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// The address the owner asked for cannot be had.
    #[error("{key}: {address} cannot be used: {error}")]
    Asked {
        /// Key of the configuration.
        key: &'static str,
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// Not even a free port of 127.0.0.1 can be had.
    #[error("{key}: no address can be used: {error}")]
    None {
        /// Key of the configuration.
        key: &'static str,
        /// What the system said to the last attempt.
        error: std::io::Error,
    },
    /// The address could not be remembered.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

impl Purpose {
    /// Binds the address and remembers it.
    pub(crate) async fn bind(
        &self,
        wanted: ListenAddress,
        data: &DataDir,
    ) -> Result<TcpListener, ListenError> {
        let listener = match wanted {
            ListenAddress::Asked(address) => TcpListener::bind(address)
                .await
                .map_err(|error| ListenError::Asked { key: self.key, address, error })?,
            ListenAddress::Default => self.bind_usual(data).await?,
        };
        let address = listener.local_addr();
        let address = address.map_err(|error| ListenError::None { key: self.key, error })?;
        data.remember_address(self.file, address)?;
        Ok(listener)
    }

    /// The address that the running node, or the last one, listens on.
    pub(crate) fn remembered(&self, data: &DataDir) -> Option<SocketAddr> {
        data.remembered_address(self.file)
    }

    async fn bind_usual(&self, data: &DataDir) -> Result<TcpListener, ListenError> {
        let remembered = self.remembered(data);
        let any = at([127, 0, 0, 1], 0);
        // A free port chosen once is tried before another free port, so that clients find their
        // server again; the usual addresses come first, as people know them.
        let candidates = self.usual.into_iter().chain(remembered).chain([any]);
        let mut refused: Option<(SocketAddr, std::io::Error)> = None;
        for address in candidates {
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    if let Some((first, error)) = refused {
                        let used = listener.local_addr().unwrap_or(address);
                        tracing::info!("{first} cannot be used ({error}), so {used} is");
                    }
                    return Ok(listener);
                }
                Err(error) => {
                    refused.get_or_insert((address, error));
                }
            }
        }
        let error =
            refused.map_or_else(|| std::io::Error::other("no candidates"), |(_, error)| error);
        Err(ListenError::None { key: self.key, error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(Some(dir.path().to_owned())).unwrap();
        (dir, data)
    }

    #[tokio::test]
    async fn an_address_asked_for_is_used_or_is_an_error() {
        let (_dir, data) = data();
        let any = at([127, 0, 0, 1], 0);
        let first = CLIENTS.bind(ListenAddress::Asked(any), &data).await.unwrap();
        let taken = first.local_addr().unwrap();
        assert_eq!(CLIENTS.remembered(&data), Some(taken));
        let error = CLIENTS.bind(ListenAddress::Asked(taken), &data).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("listenAddress: {taken} cannot be used")));
    }

    #[tokio::test]
    async fn defaults_fall_back() {
        let (_dir, data) = data();
        let one = ADMIN.bind(ListenAddress::Default, &data).await.unwrap();
        let two = ADMIN.bind(ListenAddress::Default, &data).await.unwrap();
        assert_ne!(one.local_addr().unwrap(), two.local_addr().unwrap());
    }
}
