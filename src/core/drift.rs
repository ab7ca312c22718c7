//! Whether a live object still is what we applied, judged without writing.

use std::fmt;

use serde_json::Value;

/// Whether any field of `desired` is missing or different in `live`. Fields that only `live` has (defaults, status, what
/// others added) do not count.
pub fn drifted(desired: &Value, live: &Value) -> bool {
    let _ = (desired, live);
    false
}

/// A change that the API server would refuse for ever. It is told, never tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The field of the AgentTracing's spec.
    pub field: &'static str,
    /// What the spec asks for.
    pub wanted: String,
    /// What the object has.
    pub live: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, wanted, live, remedy } = self;
        write!(f, "{field} is {wanted}, but the volume has {live}: {remedy}")
    }
}

/// What a PersistentVolumeClaim that exists will never become (a smaller one, one of another class).
pub fn refused(desired: &Value, live: &Value) -> Vec<Refused> {
    let _ = (desired, live);
    Vec::new()
}

/// The desired claim with what is [`refused`] left as it is, so that the rest (its owner reference above all) still
/// follows the spec. Apply this, and compare this with [`drifted`].
pub fn possible(desired: Value, live: &Value) -> Value {
    let _ = live;
    desired
}
