//! Quotes what API servers, kubelets and MLflow say in a message of ours: short, and without the secrets in it.

/// Text of the API server or the kubelet, or a container's last words: on one line, bounded, and without what may be a secret
/// in it. An API server quotes whole objects with all their values, SQLAlchemy the address of a database with its password.
pub fn shorten(text: &str) -> String {
    let outside = without_objects(text);
    let line = outside.split_whitespace().map(without_credentials).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn without_objects(text: &str) -> String {
    let (mut outside, mut depth) = (String::new(), 0_usize);
    for c in text.chars() {
        if depth == 0 && c == '{' {
            outside.push_str("{…}");
        }
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ if depth == 0 => outside.push(c),
            _ => {}
        }
    }
    outside
}

/// `postgresql://jane:secret@db/mlflow` as `…@db/mlflow`; the digest of an image is no credential.
fn without_credentials(word: &str) -> String {
    match word.rsplit_once('@') {
        Some((before, host)) if before.contains(':') && !host.starts_with("sha256:") => format!("…@{host}"),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_told_without_the_secrets_in_it() {
        for (said, told) in [
            (
                "could not parse 'postgresql://jane:p@ss@db.example.com/x', sorry",
                "could not parse …@db.example.com/x', sorry",
            ),
            ("could not parse postgres//jane:secret@db", "could not parse …@db"),
            ("Back-off pulling r.example.com:5000/a@sha256:0f", "Back-off pulling r.example.com:5000/a@sha256:0f"),
            (
                "Job is invalid: spec.template: Invalid value: core.PodTemplateSpec{A:{B:\"secret\"}, C:1}: field is immutable",
                "Job is invalid: spec.template: Invalid value: core.PodTemplateSpec{…}: field is immutable",
            ),
            ("cut off: {\"env\": \"secret", "cut off: {…}"),
            ("} ask\n jane@example.com", "ask jane@example.com"),
        ] {
            assert_eq!(shorten(said), told);
        }
    }
}
