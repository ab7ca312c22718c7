//! What is said of a child that cannot be brought to what is wanted.

use super::child::{Adopt, Child};
use crate::api::Reason;
use crate::core::status::condition::ChildObstacle;

/// Why a child is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Somebody else's object has its name.
    NotOurs,
    /// The API server refuses it.
    Refused {
        /// The code of its answer.
        code: u16,
        /// Its message.
        message: String,
    },
}

impl Child {
    /// The condition's reason and message for what keeps this child from being as wanted.
    pub fn obstacle(&self, hindrance: &Hindrance) -> ChildObstacle {
        let Self { namespace, name, resource, .. } = self;
        let kind = &resource.kind;
        let singular = kind.to_lowercase();
        match (&self.adopt, hindrance) {
            (Adopt::OfTracing(_), Hindrance::NotOurs) => ChildObstacle {
                reason: Reason::NameConflict,
                message: format!(
                    "{kind} {name} exists and is not the operator's, so it is left alone; delete or rename it, or choose another name for \
                     this AgentTracing: kubectl get {} -n {namespace} {name} -o yaml",
                    resource.plural
                ),
            },
            (Adopt::Shared(purpose), Hindrance::NotOurs) => ChildObstacle {
                reason: Reason::NameConflict,
                message: format!(
                    "{kind} {name} exists and is not the operator's, so it is left alone{}; delete or rename it: kubectl get {singular} -n \
                     {namespace} {name} -o yaml",
                    purpose.loss
                ),
            },
            (Adopt::OfTracing(tracing), Hindrance::Refused { code: 403, message }) => {
                let next = match is_quota(message) {
                    true => format!("make room or lower the demand: kubectl describe resourcequota -n {namespace}"),
                    false => {
                        format!("see what forbids it: kubectl describe agenttracing -n {namespace} {}", tracing.name)
                    }
                };
                ChildObstacle {
                    reason: Reason::CreateForbidden,
                    message: format!("The API server forbids {kind} {name} ({message}); {next}"),
                }
            }
            (Adopt::OfTracing(tracing), Hindrance::Refused { code: _, message }) => ChildObstacle {
                reason: self.refused,
                message: format!(
                    "The API server refuses {kind} {name} ({message}); change the field concerned: kubectl edit agenttracing -n \
                     {namespace} {}",
                    tracing.name
                ),
            },
            (Adopt::Shared(purpose), Hindrance::Refused { code: _, message }) => {
                let next = match is_quota(message) {
                    true => format!("make room: kubectl describe resourcequota -n {namespace}"),
                    false => format!("see what is there: kubectl get {singular} -n {namespace} {name} -o yaml"),
                };
                ChildObstacle {
                    reason: self.refused,
                    message: format!("The API server refuses {kind} {name}{} ({message}); {next}", purpose.users),
                }
            }
        }
    }
}

/// Whether the API server refuses the same again until either side changes: so it is with what is invalid. A quota may become
/// free at any time, and policies come and go; the words are those of webhooks and of ValidatingAdmissionPolicies.
pub fn is_lasting(code: u16, message: &str) -> bool {
    code != 403 && !message.contains("denied the request") && !message.contains("denied request")
}

fn is_quota(message: &str) -> bool {
    message.contains("quota")
}
