//! Reads metrics as Prometheus does, for tests: the classic text format.

use std::collections::{BTreeMap, BTreeSet};

/// All samples of one name, as `# TYPE` names it.
#[derive(Debug, Default)]
pub struct Family {
    pub name: String,
    pub kind: String,
    pub help: String,
    pub labels: BTreeSet<String>,
    /// Names of its samples: of a histogram there are three.
    pub samples: BTreeSet<String>,
}

/// The families in the order in which they are written.
pub fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            families.push(Family { name: name.to_owned(), help: help.to_owned(), ..Family::default() });
        } else if let Some(family) = families.last_mut() {
            if let Some(kind) = line.strip_prefix(&format!("# TYPE {} ", family.name)) {
                kind.clone_into(&mut family.kind);
                continue;
            }
            let series = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}")).0;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            assert!(name.starts_with(&family.name), "{line} stands among those of {}", family.name);
            family.samples.insert(name.to_owned());
            let labels = labels.split(',').filter_map(|label| label.split_once("=\"")).map(|(name, _)| name.to_owned());
            family.labels.extend(labels.filter(|label| label != "le"));
        }
    }
    families
}

/// The table of the documentation.
pub fn table(families: &[Family]) -> String {
    let row = |family: &Family| {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let help = family.help.trim_end_matches('.');
        format!("| `{}` | {} | {} | {help} |\n", family.name, family.kind, labels.join(", "))
    };
    let rows: String = families.iter().map(row).collect();
    format!("| metric | type | labels | meaning |\n|---|---|---|---|\n{rows}")
}

/// The value of each series.
pub fn values(text: &str) -> BTreeMap<&str, f64> {
    let samples = text.lines().filter(|line| line.starts_with("agent_tracing_"));
    samples.filter_map(|line| line.rsplit_once(' ')).map(|(series, value)| (series, value.parse().unwrap())).collect()
}

/// The metrics of ours that a text names.
pub fn named_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("agent_tracing_")).map(str::to_owned).collect()
}
