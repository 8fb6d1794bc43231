//! Where a browser's request comes from, as far as its connection and headers tell.

use std::net::IpAddr;

/// What is known of a request to the consent page.
#[derive(Debug, Clone, Default)]
pub struct Visit {
    /// The address at the other end of the connection.
    pub peer: Option<IpAddr>,
    /// `Host`.
    pub host: Option<String>,
    /// `Origin`.
    pub origin: Option<String>,
    /// `Sec-Fetch-Site`.
    pub fetch_site: Option<String>,
    /// `Sec-Fetch-Mode`.
    pub fetch_mode: Option<String>,
    /// `Sec-Fetch-Dest`.
    pub fetch_dest: Option<String>,
    /// A header that proxies set (`Forwarded`, `X-Forwarded-For`, `Via`), if there is one.
    pub forwarded: Option<String>,
}

impl Visit {
    /// The page may be opened from anywhere, but as a page: not in a frame, not by a script.
    pub(super) fn check_navigation(&self) -> Result<(), &'static str> {
        self.check_here()?;
        match (self.fetch_mode.as_deref(), self.fetch_dest.as_deref()) {
            (None | Some("navigate"), None | Some("document")) => Ok(()),
            _ => Err("the page was not opened as a page"),
        }
    }

    /// The consent may be sent only by the page itself. A browser says so in at least one of
    /// the two headers, and a web page can forge neither.
    pub(super) fn check_same_origin(&self) -> Result<(), &'static str> {
        self.check_here()?;
        let own = format!("http://{}", self.host.as_deref().unwrap_or_default());
        let origin = self.origin.as_deref().map(|origin| origin.eq_ignore_ascii_case(&own));
        let site = self.fetch_site.as_deref().map(|site| site == "same-origin");
        match (origin, site) {
            (Some(true), None | Some(true)) | (None, Some(true)) => Ok(()),
            (None, None) => Err("the browser does not say which page sent this"),
            _ => Err("another page sent this"),
        }
    }

    /// The connection is local, and so is the name the browser used: a foreign name that
    /// resolves to this machine (DNS rebinding) is refused.
    fn check_here(&self) -> Result<(), &'static str> {
        if !self.peer.is_some_and(|ip| ip.to_canonical().is_loopback()) {
            return Err("the connection comes from another machine");
        }
        if self.forwarded.is_some() {
            return Err("the request came through a proxy");
        }
        if !self.host.as_deref().is_some_and(is_loopback_host) {
            return Err("the address in the browser is not a loopback address");
        }
        Ok(())
    }
}

/// Whether `host[:port]` is a loopback address or `localhost`.
fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((address, port)) if port.is_empty() || is_port(port) => address,
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if is_port(&format!(":{port}")) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

/// Whether an `http` or `https` URL names a loopback address.
pub(super) fn is_loopback_url(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.and_then(|rest| rest.split('/').next()).is_some_and(is_loopback_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Visit {
        Visit {
            peer: Some(IpAddr::from([127, 0, 0, 1])),
            host: Some("127.84.48.2:8008".to_owned()),
            ..Visit::default()
        }
    }

    #[test]
    fn loopback_names() {
        for host in ["127.0.0.1", "127.84.48.2:80", "localhost:8008", "[::1]:80", "[::1]"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::1",
            "localhost:x",
            "127.0.0.1:80@evil.example",
            "::1",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
        assert!(is_loopback_url("http://127.84.48.2/x"));
        assert!(!is_loopback_url("https://chat.example"));
    }

    #[test]
    fn only_this_machine_may_open_the_page() {
        assert!(here().check_navigation().is_ok());
        for visit in [
            Visit { peer: Some(IpAddr::from([192, 168, 1, 7])), ..here() },
            Visit { peer: None, ..here() },
            Visit { host: Some("rebound.example".to_owned()), ..here() },
            Visit { host: None, ..here() },
            Visit { forwarded: Some("192.168.1.7".to_owned()), ..here() },
            Visit { fetch_dest: Some("iframe".to_owned()), ..here() },
            Visit { fetch_mode: Some("cors".to_owned()), ..here() },
        ] {
            assert!(visit.check_navigation().is_err(), "{visit:?}");
        }
    }

    #[test]
    fn only_the_page_itself_may_consent() {
        let origin = |text: &str| Some(text.to_owned());
        let own = origin("http://127.84.48.2:8008");
        for visit in [
            Visit { origin: own.clone(), ..here() },
            Visit { fetch_site: origin("same-origin"), ..here() },
            Visit { origin: own.clone(), fetch_site: origin("same-origin"), ..here() },
        ] {
            assert!(visit.check_same_origin().is_ok(), "{visit:?}");
        }
        for visit in [
            here(),
            Visit { origin: origin("null"), ..here() },
            Visit { origin: origin("http://127.84.48.1"), ..here() },
            Visit { origin: origin("https://evil.example"), ..here() },
            Visit { fetch_site: origin("cross-site"), ..here() },
            Visit { fetch_site: origin("none"), ..here() },
            Visit { origin: own.clone(), fetch_site: origin("same-site"), ..here() },
        ] {
            assert!(visit.check_same_origin().is_err(), "{visit:?}");
        }
    }
}
