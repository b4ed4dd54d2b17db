//! `//user:password@host:port/path` of an RTSP or MQTT address. No error here repeats any of it.

use std::net::Ipv6Addr;

use crate::config::Secret;

/// The parts of an address after its scheme.
#[derive(Debug, PartialEq)]
pub(super) struct Address {
    /// User name, decoded.
    pub user: Option<String>,
    /// Password, decoded.
    pub password: Option<Secret>,
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// Port, where written.
    pub port: Option<u16>,
    /// Path and query with their `/` or `?`, as written.
    pub rest: String,
}

impl Address {
    /// Reads what follows `scheme://`.
    ///
    /// # Errors
    ///
    /// One sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(
                "an address holds no spaces or control characters: write them as %20 and the like".to_owned()
            );
        }
        let (authority, rest) = text.split_at(text.find(['/', '?', '#']).unwrap_or(text.len()));
        // The last @: a password may hold one.
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        if login.is_none() && rest.contains('@') {
            // Else `user:1/2@host` would be host `user`, and the rest of the password part of a path that is shown.
            return Err(
                "an @ stands after a /: write / in a user or password as %2F, @ in a path as %40".to_owned()
            );
        }
        let (host, port) = split_port(place)?;
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (Some(percent_decoded(user)?), Some(percent_decoded(password)?)),
            None => (None, None),
        };
        Ok(Self {
            user: user.filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()).map(Secret::new),
            host,
            port,
            rest: rest.to_owned(),
        })
    }

    /// The address without user and password.
    pub fn stripped(&self, scheme: &str) -> String {
        let brackets = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{}{}{}{port}{}", brackets.0, self.host, brackets.1, self.rest)
    }
}

fn split_port(place: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match place.strip_prefix('[').map(|v6| v6.split_once(']')) {
        Some(Some((v6, port))) if v6.parse::<Ipv6Addr>().is_ok() => (v6, port),
        Some(_) => return Err("the IPv6 address in [ ] is none".to_owned()),
        None => {
            let (host, port) = place.split_at(place.find(':').unwrap_or(place.len()));
            if !is_host_name(host) {
                return Err(
                    "give a host name or an IP address after :// (in a user or password write / as %2F and @ as %40)"
                        .to_owned(),
                );
            }
            (host, port)
        }
    };
    let port =
        match port.strip_prefix(':') {
            Some(digits) => Some(digits.parse().ok().filter(|port| *port > 0 && !digits.starts_with('+')).ok_or(
                "the port is no number from 1 to 65535 (in a user or password write / as %2F and : as %3A)",
            )?),
            None if port.is_empty() => None,
            None => return Err("write host:port".to_owned()),
        };
    Ok((host.to_owned(), port))
}

fn is_host_name(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_')
}

/// `%41` → `A`.
///
/// # Errors
///
/// One sentence that says what is wrong.
pub(super) fn percent_decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            (b'%', _) => None,
            _ => Some(*first),
        };
        bytes.push(code.ok_or("a % is not followed by two hex digits: write % as %25")?);
        rest = if *first == b'%' { &tail[2..] } else { tail };
    }
    let text = String::from_utf8(bytes).map_err(|_| "what stands for % codes is not UTF-8".to_owned())?;
    if text.chars().any(char::is_control) {
        return Err("a % code stands for a control character: remove it".to_owned());
    }
    Ok(text)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts<'a> = (Option<&'a str>, Option<&'a str>, &'a str, Option<u16>, &'a str);

    #[test]
    fn addresses() {
        let cases: [(&str, Option<Parts<'_>>); 16] = [
            ("host", Some((None, None, "host", None, ""))),
            ("10.0.0.1:554/a/b?c=1", Some((None, None, "10.0.0.1", Some(554), "/a/b?c=1"))),
            ("u:p@host/x", Some((Some("u"), Some("p"), "host", None, "/x"))),
            ("u:p@ss@host", Some((Some("u"), Some("p@ss"), "host", None, ""))),
            ("u:p%40%2fs%C3%A9@host", Some((Some("u"), Some("p@/sé"), "host", None, ""))),
            ("u:a:b@host:1", Some((Some("u"), Some("a:b"), "host", Some(1), ""))),
            ("u@host", Some((Some("u"), None, "host", None, ""))),
            ("u:p@[fe80::1]:554/x", Some((Some("u"), Some("p"), "fe80::1", Some(554), "/x"))),
            ("", None),
            ("host:0", None),
            ("admin:1/ss@host/x", None),
            ("host:70000", None),
            ("admin:pa/ss@host/x", None),
            ("u:p%4@host", None),
            ("u:%00@host", None),
            ("[fe80::1", None),
        ];
        for (text, parts) in cases {
            let address = Address::parse(text);
            let found = address.as_ref().ok().map(|a| {
                let password = a.password.as_ref().map(Secret::expose);
                (a.user.as_deref(), password, a.host.as_str(), a.port, a.rest.as_str())
            });
            assert_eq!(found, parts, "{text}");
        }
    }

    #[test]
    fn stripped_address_holds_no_login() {
        let address = Address::parse("u:p@[fe80::1]:554/x?y").unwrap();
        assert_eq!(address.stripped("rtsp"), "rtsp://[fe80::1]:554/x?y");
    }
}
