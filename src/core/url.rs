//! The parts of an address, read the same way by everything that compares hosts.

/// Scheme, host and port of an address.
pub fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().filter(|a| !a.is_empty() && !a.contains('@'))?;
    Some(format!("{}://{authority}", scheme.to_ascii_lowercase()))
}

/// An address as it is compared: without what may be written in more than one way. Two paths of one host are two addresses.
pub fn address(url: &str) -> Option<String> {
    let origin = origin(url)?;
    let path = url.split_once("://")?.1.split_once('/').map_or("", |(_, path)| path);
    Some(format!("{}/{path}", origin.to_ascii_lowercase()).trim_end_matches('/').to_owned())
}

/// Host and port of an address, as it has them.
pub fn authority(url: &str) -> Option<String> {
    Some(origin(url)?.split_once("://")?.1.to_owned())
}

/// The host of an address, without its port.
pub fn host(url: &str) -> Option<String> {
    let authority = authority(url)?;
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => authority.split(':').next()?,
    };
    Some(host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_apart_from_ports_paths_and_users() {
        assert_eq!(host("https://MLflow.example.com:8443/x").as_deref(), Some("mlflow.example.com"));
        assert_eq!(host("https://[::1]:8443").as_deref(), Some("::1"));
        assert_eq!(host("https://trusted.example.com@evil.example.com/"), None);
        assert_eq!(host("mlflow"), None);
    }

    #[test]
    fn addresses_are_compared_whole() {
        let one = address("HTTPS://MLflow.example.com:8443/Team/");
        assert_eq!(one.as_deref(), Some("https://mlflow.example.com:8443/Team"));
        assert_eq!(address("https://mlflow.example.com:8443/").as_deref(), Some("https://mlflow.example.com:8443"));
        assert_eq!(address("https://user@mlflow.example.com"), None);
    }
}
