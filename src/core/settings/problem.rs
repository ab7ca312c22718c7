//! What is wrong with a spec, as it is told.

use std::collections::BTreeMap;
use std::fmt;

use super::valid;

/// A value that the API server accepted and that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, as `kubectl explain` spells it.
    pub field: String,
    /// The value found there.
    pub value: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, remedy } = self;
        write!(f, "{field} is \"{value}\": {remedy}")
    }
}

/// All that is wrong with one AgentTracing.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, field: &str, value: &str, remedy: &str) {
        self.0.push(Problem { field: field.to_owned(), value: value.to_owned(), remedy: remedy.to_owned() });
    }

    pub(super) fn secret(&mut self, field: &str, name: &str) {
        if !valid::object_name(name) {
            self.add(
                field,
                name,
                "write the name of a Secret of this namespace: lower-case letters, digits, '-' and '.'",
            );
        }
    }

    pub(super) fn labels(&mut self, field: &str, labels: &BTreeMap<String, String>) {
        for (key, value) in labels {
            if !valid::label_key(key) {
                self.add(field, key, LABEL_KEY);
            } else if !valid::label_value(value) {
                let remedy = "write a label value: at most 63 letters, digits, '-', '_' and '.', beginning and ending with \
                              a letter or digit";
                self.add(&format!("{field}.{key}"), value, remedy);
            }
        }
    }
}

pub(super) const LABEL_KEY: &str = "write a label key: an optional DNS name and '/', then at most 63 letters, digits, '-', '_' and \
                         '.', beginning and ending with a letter or digit";
