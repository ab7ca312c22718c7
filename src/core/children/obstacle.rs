//! What is said of a child that cannot be brought to what is wanted.

use super::child::{Adopt, Child};
use crate::api::Reason;
use crate::core::kubectl::Kubectl;
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
        let get = |what: &str| Kubectl::new("get").arg(what).namespace(namespace).arg(name).yaml();
        let of_tracing = |what: &str, tracing: &str| Kubectl::new(what).namespace(namespace).arg(tracing);
        let quota = || Kubectl::new("describe resourcequota").namespace(namespace);
        match (&self.adopt, hindrance) {
            (Adopt::OfTracing(_), Hindrance::NotOurs) => ChildObstacle {
                reason: Reason::NameConflict,
                message: format!(
                    "{kind} {name} exists and is not the operator's, so it is left alone; delete or rename it, or choose another name for \
                     this AgentTracing: {}",
                    get(&resource.plural)
                ),
            },
            (Adopt::Shared(purpose), Hindrance::NotOurs) => ChildObstacle {
                reason: Reason::NameConflict,
                message: format!(
                    "{kind} {name} exists and is not the operator's, so it is left alone{}; delete or rename it: {}",
                    purpose.loss,
                    get(&kind.to_lowercase())
                ),
            },
            (Adopt::OfTracing(tracing), Hindrance::Refused { code: 403, message }) => {
                let next = match is_quota(message) {
                    true => format!("make room or lower the demand: {}", quota()),
                    false => {
                        format!("see what forbids it: {}", of_tracing("describe agenttracing", &tracing.name))
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
                    "The API server refuses {kind} {name} ({message}); change the field concerned: {}",
                    of_tracing("edit agenttracing", &tracing.name)
                ),
            },
            (Adopt::Shared(purpose), Hindrance::Refused { code: _, message }) => {
                let next = match is_quota(message) {
                    true => format!("make room: {}", quota()),
                    false => format!("see what is there: {}", get(&kind.to_lowercase())),
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
