//! Kubernetes' rules for names and labels, and MLflow's for host names.

/// A name of an AgentTracing, as the kind's CEL rule has it: `<name>-mlflow` must be the name of a Service.
pub fn name(name: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let inner = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    first && inner && edge(name.bytes().last()) && name.len() <= 56
}

/// A DNS subdomain: the name of most objects.
pub fn object_name(name: &str) -> bool {
    let label = |label: &str| {
        let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        label.starts_with(alphanumeric)
            && label.ends_with(alphanumeric)
            && label.chars().all(|c| alphanumeric(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// A key of a Secret.
pub fn secret_key(key: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=253).contains(&key.len()) && key.chars().all(allowed) && !matches!(key, "." | "..")
}

/// A label key or resource name: an optional DNS subdomain and `/`, then a [`segment`].
pub fn label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, rest)) => object_name(prefix) && segment(rest),
        None => segment(key),
    }
}

/// A label value; it may be empty.
pub fn label_value(value: &str) -> bool {
    value.is_empty() || segment(value)
}

fn segment(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63 && text.starts_with(edge) && text.ends_with(edge) && text.chars().all(allowed)
}

/// Why MLflow would never find a Host header equal to this one (`is_allowed_host_header`, MLflow 3.5 to 3.17: exact and
/// case-sensitive, fnmatch where it holds `*`, the list separated by commas).
pub fn host_problem(host: &str) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '*' | '_' | '[' | ']');
    if host.contains("://") || host.contains('/') {
        Some("write the host alone, without scheme and path, for example mlflow.apps.example.com")
    } else if host.contains(',') {
        Some("write each host as an entry of its own")
    } else if host.chars().any(|c| c.is_ascii_uppercase()) {
        Some("write it in lower case: browsers send it so, and MLflow compares exactly")
    } else if host.contains('*') && host.contains(['[', ']']) {
        Some("write either an IPv6 address or a pattern: beside '*', MLflow reads brackets as a set of characters")
    } else if host.is_empty() || !host.chars().all(allowed) {
        Some(
            "write a host name of letters, digits, '-', '_' and '.', with ':port' where it has one, or '*' for any characters",
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_kubernetes() {
        assert!(name("tracing") && name("a") && name(&"a".repeat(56)) && name("a-1"));
        for wrong in ["", "1a", "a-", "-a", "A", "a.b", "ä", &"a".repeat(57)] {
            assert!(!name(wrong), "{wrong}");
        }
        assert!(object_name("my.secret-1") && !object_name("my..secret") && !object_name("-a") && !object_name(""));
        assert!(
            secret_key("tls.crt") && secret_key("DB_URI") && !secret_key("a b") && !secret_key("..") && !secret_key("")
        );
        assert!(label_key("a") && label_key("example.com/A_b.c") && label_key("nvidia.com/gpu"));
        assert!(
            !label_key("")
                && !label_key("/a")
                && !label_key("a/")
                && !label_key("a/b/c")
                && !label_key(&"a".repeat(64))
        );
        assert!(label_value("") && label_value("4711") && !label_value("-a") && !label_value("a b"));
    }

    #[test]
    fn hosts_are_what_mlflow_can_match() {
        for right in ["mlflow.example.com", "*.example.com", "mlflow:8443", "*", "10.0.0.1", "[::1]:5500"] {
            assert_eq!(host_problem(right), None, "{right}");
        }
        for wrong in ["", "https://a", "a/b", "a,b", "A.b", "[::1]:*", "a b", "a?"] {
            assert!(host_problem(wrong).is_some(), "{wrong}");
        }
    }
}
