//! Where a browser goes with its login token.

/// Longest redirect URL, in bytes.
const MAX_BYTES: usize = 2048;
/// Schemes with which the browser would run or show the token instead of going somewhere.
const REFUSED_SCHEMES: [&str; 7] =
    ["javascript", "data", "vbscript", "file", "blob", "about", "filesystem"];

/// An absolute URL that a login token may be sent to: a web client's page, or an address that
/// an installed client has registered for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectUrl(String);

impl RedirectUrl {
    /// Takes a URL that is safe in a `Location` header; `None` for every other.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let first = scheme.bytes().next()?;
        let scheme_is_valid = first.is_ascii_alphabetic()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let is_plain = url.len() <= MAX_BYTES && url.bytes().all(|b| b.is_ascii_graphic());
        let refused = REFUSED_SCHEMES.iter().any(|refused| scheme.eq_ignore_ascii_case(refused));
        if !scheme_is_valid || !is_plain || refused {
            return None;
        }
        // The target that is shown must be the target that is gone to.
        if is_web(scheme) && (host(rest)?.is_empty() || rest.contains('\\')) {
            return None;
        }
        Some(Self(url.to_owned()))
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a person is told about the target: the host of a web page, the scheme of an
    /// installed client.
    pub(super) fn target(&self) -> &str {
        match self.0.split_once(':') {
            Some((scheme, rest)) if is_web(scheme) => host(rest).unwrap_or_default(),
            Some((scheme, _)) => scheme,
            None => "",
        }
    }

    /// The URL with a login token in its query.
    pub(super) fn with_login_token(&self, token: &str) -> String {
        let (before, fragment) = match self.0.split_once('#') {
            Some((before, fragment)) => (before, Some(fragment)),
            None => (self.0.as_str(), None),
        };
        let joint = if before.contains('?') { '&' } else { '?' };
        let fragment = fragment.map(|text| format!("#{text}")).unwrap_or_default();
        format!("{before}{joint}loginToken={token}{fragment}")
    }
}

fn is_web(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Host and port of what follows the scheme; `None` without `//`, or with user information,
/// which only serves to deceive.
fn host(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix("//")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    (!authority.contains('@')).then_some(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_into_the_query() {
        let with = |url: &str| RedirectUrl::parse(url).unwrap().with_login_token("T");
        assert_eq!(with("http://127.84.48.1/"), "http://127.84.48.1/?loginToken=T");
        assert_eq!(with("http://a/?x=1#/home"), "http://a/?x=1&loginToken=T#/home");
        assert_eq!(with("element://vector/login"), "element://vector/login?loginToken=T");
    }

    #[test]
    fn the_shown_target_is_the_real_one() {
        let target = |url: &str| RedirectUrl::parse(url).unwrap().target().to_owned();
        assert_eq!(target("https://chat.example:8443/a?b"), "chat.example:8443");
        assert_eq!(target("nheko:login"), "nheko");
    }

    #[test]
    fn dangerous_targets_are_refused() {
        for url in [
            "",
            "/relative",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "http:evil",
            "http:///x",
            "http://good.example@evil.example/",
            "http:\\\\evil.example",
            "http://a/\r\nSet-Cookie: x",
            "http://a/ b",
            "1http://a/",
        ] {
            assert_eq!(RedirectUrl::parse(url), None, "{url}");
        }
        assert_eq!(RedirectUrl::parse(&format!("http://a/{}", "x".repeat(MAX_BYTES))), None);
    }
}
