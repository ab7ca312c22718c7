//! Lists of hosts that an administrator gives, as `host` or `host:port`.

use std::collections::BTreeSet;

use crate::core::url::{host, origin};

/// Hosts, each with one port or with all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(BTreeSet<(String, Option<u16>)>);

impl Hosts {
    /// Reads a list. An entry that is not read as it was meant would send a token elsewhere, so it is refused.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        entries.into_iter().map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the server at this address is listed.
    pub fn contains(&self, url: &str) -> bool {
        let (Some(host), Some(port)) = (host(url), port(url)) else { return false };
        self.0.contains(&(host.clone(), None)) || self.0.contains(&(host, Some(port)))
    }
}

fn entry(text: &str) -> Result<(String, Option<u16>), String> {
    let refused = || format!("write host or host:port in place of {text:?}, for example mlflow.example.com:8443");
    let name = text.strip_prefix('[').map_or(text, |rest| rest.split(']').next().unwrap_or_default());
    let is_address = name.contains(':');
    let wrong = |c: char| c.is_whitespace() || "/@?#*".contains(c);
    // An IPv6 address stands in brackets, or its last group would be taken for a port.
    if text.is_empty()
        || text.contains(wrong)
        || (is_address && !text.starts_with('[') && text.matches(':').count() > 1)
    {
        return Err(refused());
    }
    let url = format!("https://{text}");
    match (host(&url), port(&url)) {
        (Some(host), Some(port)) if !host.is_empty() => Ok((host, has_port(text).then_some(port))),
        _ => Err(refused()),
    }
}

/// The port of an address: the one of its scheme where none is given, nothing where it is no number.
fn port(url: &str) -> Option<u16> {
    let origin = origin(url)?;
    let (scheme, authority) = origin.split_once("://")?;
    let after = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    match after.rsplit_once(':') {
        Some((_, port)) => port.parse().ok(),
        None if scheme == "http" => Some(80),
        None => Some(443),
    }
}

fn has_port(authority: &str) -> bool {
    authority.rsplit_once(']').map_or(authority, |(_, rest)| rest).contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_counts_where_one_is_given() {
        let hosts = Hosts::parse(["any.example.com", "One.example.com:8443", "[fd00::1]:5000", "[fd00::2]"]).unwrap();
        let listed = [
            "https://any.example.com",
            "http://any.example.com:1234/mlflow",
            "https://ONE.example.com:8443/mlflow",
            "http://[fd00::1]:5000",
            "https://[fd00::2]:1",
        ];
        let others = [
            "https://one.example.com",
            "https://one.example.com:8444",
            "http://one.example.com",
            "http://[fd00::1]",
            "https://any.example.com.evil.example.com",
            "https://any.example.com@evil.example.com",
            "https://any.example.com:port",
            "any.example.com",
            "",
        ];
        for url in listed {
            assert!(hosts.contains(url), "{url}");
        }
        for url in others {
            assert!(!hosts.contains(url), "{url}");
        }
        let default = Hosts::parse(["a.example.com:443", "b.example.com:80"]).unwrap();
        assert!(default.contains("https://a.example.com") && default.contains("http://b.example.com"));
        assert!(!default.contains("http://a.example.com") && !default.contains("https://b.example.com"));
    }

    #[test]
    fn what_is_no_host_is_refused_with_an_example() {
        for wrong in
            ["", "https://a.example.com", "a/b", "a b", "a@b", "a:", "a:b", "a:70000", "fd00::1", "*.example.com", "[]"]
        {
            let refused = Hosts::parse([wrong]).unwrap_err();
            assert!(refused.contains("mlflow.example.com:8443"), "{wrong}: {refused}");
        }
    }
}
