//! Commands for people to type, as messages end with them: quoted where a shell would take a word apart, and without what is too
//! long to type.

use std::fmt;

use serde_json::Value;

/// Most characters of a selector in a command.
const MAX_SELECTOR: usize = 512;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubectl(String);

impl Kubectl {
    /// `kubectl` with what it is to do, in as many words as that takes: `rollout restart`.
    pub fn new(what: &str) -> Self {
        Self(format!("kubectl {what}"))
    }

    /// With a namespace.
    pub fn namespace(self, namespace: &str) -> Self {
        self.arg("-n").arg(namespace)
    }

    /// With one more word.
    pub fn arg(mut self, word: &str) -> Self {
        self.0.push(' ');
        self.0.push_str(&quoted(word));
        self
    }

    /// With more words.
    pub fn args<'w>(self, words: impl IntoIterator<Item = &'w str>) -> Self {
        words.into_iter().fold(self, Self::arg)
    }

    /// With a label selector; without where there is none or it is too long to type. See [`Kubectl::selects`].
    pub fn selector(self, selector: &str) -> Self {
        match Self::selects(selector) {
            true => self.arg("-l").arg(selector),
            false => self,
        }
    }

    /// Whether a command takes this selector. One that deletes must not go without.
    pub fn selects(selector: &str) -> bool {
        (1..=MAX_SELECTOR).contains(&selector.len())
    }

    /// Showing one field.
    pub fn jsonpath(mut self, path: &str) -> Self {
        self.0.push_str(&format!(" -o jsonpath={}", in_quotes(&format!("{{{path}}}"))));
        self
    }

    /// Showing the whole object.
    pub fn yaml(self) -> Self {
        self.args(["-o", "yaml"])
    }

    /// With a merge patch.
    pub fn merge(mut self, patch: &Value) -> Self {
        self.0.push_str(&format!(" --type merge -p {}", in_quotes(&patch.to_string())));
        self
    }
}

impl fmt::Display for Kubectl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A word that a shell reads as one.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => in_quotes(word),
    }
}

fn in_quotes(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_shell_reads_each_word_as_one() {
        let restart = Kubectl::new("rollout restart").namespace("bank").arg("deployment/teller");
        assert_eq!(restart.to_string(), "kubectl rollout restart -n bank deployment/teller");
        let label = Kubectl::new("label").arg("a.example/x=false").arg("tier in (a,b)").arg("it's").arg("");
        assert_eq!(label.to_string(), r"kubectl label a.example/x=false 'tier in (a,b)' 'it'\''s' ''");
        let patch = Kubectl::new("patch").arg("x").merge(&json!({"a": "it's"}));
        assert_eq!(patch.to_string(), r#"kubectl patch x --type merge -p '{"a":"it'\''s"}'"#);
        assert_eq!(
            Kubectl::new("get").arg("x").jsonpath(".status").to_string(),
            "kubectl get x -o jsonpath='{.status}'"
        );
    }

    #[test]
    fn a_selector_that_nobody_types_is_left_out() {
        let pods = |selector: &str| Kubectl::new("get pods").selector(selector).to_string();
        assert_eq!(pods("app=teller"), "kubectl get pods -l app=teller");
        assert_eq!(pods("app=teller,tier in (a,b)"), "kubectl get pods -l 'app=teller,tier in (a,b)'");
        assert_eq!(pods(""), "kubectl get pods");
        assert_eq!(pods(&"k".repeat(513)), "kubectl get pods");
    }
}
