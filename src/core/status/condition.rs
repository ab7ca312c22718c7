//! What becomes a condition of the status.

use crate::api::Reason;

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate {
    /// `Some(true)` and `Some(false)` as usual; `None` is `Unknown`.
    pub good: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// One sentence that ends with the next command to type.
    pub message: String,
}

impl ConditionUpdate {
    /// A condition that is `True`.
    pub fn good(reason: Reason, message: impl Into<String>) -> Self {
        Self { good: Some(true), reason, message: message.into() }
    }

    /// A condition that is `False`.
    pub fn bad(reason: Reason, message: impl Into<String>) -> Self {
        Self { good: Some(false), reason, message: message.into() }
    }

    /// A condition that is `Unknown`.
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self { good: None, reason, message: message.into() }
    }
}

/// Something about a child that cannot be brought to what the spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildObstacle {
    /// The condition's reason.
    pub reason: Reason,
    /// The condition's message.
    pub message: String,
}
