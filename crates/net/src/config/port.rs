//! One port, for TCP and UDP, the same at each start: routers and peers remember it.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::Path,
};

use tracing::warn;

/// How many ports are tried until one is free for both TCP and UDP.
const ATTEMPTS: usize = 32;

/// The port in `file` if it is free; else a free one, which is remembered if none was yet. A port
/// that is only busy now is kept for the next start.
///
/// # Errors
/// No port is free, or the file cannot be written.
pub(crate) fn choose(file: Option<&Path>) -> io::Result<u16> {
    let Some(file) = file else { return free_port() };
    let remembered = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    if let Some(port) = remembered {
        if is_free(port) {
            return Ok(port);
        }
        let other = free_port()?;
        warn!(port, other, "the remembered libp2p port is busy; using another one until restart");
        return Ok(other);
    }
    let port = free_port()?;
    fs::write(file, format!("{port}\n"))?;
    Ok(port)
}

fn free_port() -> io::Result<u16> {
    for _ in 0..ATTEMPTS {
        let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port();
        if is_free(port) {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free for both TCP and UDP"))
}

fn is_free(port: u16) -> bool {
    port != 0
        && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        && UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_the_same_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libp2p.port");
        let first = choose(Some(&file)).unwrap();
        assert_eq!(choose(Some(&file)).unwrap(), first);
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{first}\n"));
    }

    #[test]
    fn a_busy_port_is_kept_for_later() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libp2p.port");
        let first = choose(Some(&file)).unwrap();
        let busy = TcpListener::bind((Ipv4Addr::UNSPECIFIED, first)).unwrap();
        assert_ne!(choose(Some(&file)).unwrap(), first);
        drop(busy);
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{first}\n"));
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libp2p.port");
        fs::write(&file, "seventy").unwrap();
        let port = choose(Some(&file)).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{port}\n"));
    }
}
