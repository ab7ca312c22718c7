//! What of a status may change without an event: nobody watches pods, volumes and what the API server refuses. All other changes are
//! told by a watch, by the prober of the server or by the questions about traces.

use crate::api::{AgentTracingStatus, ConditionType, MlflowMode, Reason};

/// How soon it is to be looked again, as far as no event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Settling {
    /// All is as it should be, or an event tells when it is not so any more.
    Settled,
    /// Workloads do not come back, and the others wait: that somebody mends them an event tells, why they do not come back none.
    Halted,
    /// Something is not as it should be.
    Unsettled,
}

impl Settling {
    /// That of a status.
    pub fn of(status: &AgentTracingStatus, mode: MlflowMode) -> Self {
        let each = status.conditions.iter().filter(|condition| condition.status != "True").map(|condition| {
            let is_own_server =
                condition.type_ == ConditionType::MLflowReady.as_str() && mode == MlflowMode::Standalone;
            match Reason::from_name(&condition.reason) {
                _ if is_own_server => Self::Unsettled,
                Some(Reason::RolloutHalted) => Self::Halted,
                Some(reason) if !changes_unseen(reason) => Self::Settled,
                None | Some(_) => Self::Unsettled,
            }
        });
        each.max().unwrap_or(Self::Settled)
    }
}

fn changes_unseen(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::AccessDenied
            | Reason::BindForbidden
            | Reason::CreateForbidden
            | Reason::MLflowCRDMissing
            | Reason::MergeCAImage
            | Reason::NameConflict
            | Reason::PodsNotReady
            | Reason::Progressing
            | Reason::ReconcileFailed
            | Reason::RolloutInProgress
            | Reason::StorageNotBound
            | Reason::TemplateInvalid
            | Reason::TLSUntrusted
            | Reason::WebhookUnavailable
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    use super::*;

    fn of(conditions: &[(ConditionType, &str, Reason)]) -> Settling {
        let condition = |(kind, status, reason): &(ConditionType, &str, Reason)| Condition {
            type_: kind.as_str().to_owned(),
            status: (*status).to_owned(),
            reason: reason.as_str().to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        };
        let conditions = conditions.iter().map(condition).collect();
        Settling::of(&AgentTracingStatus { conditions, ..AgentTracingStatus::default() }, MlflowMode::External)
    }

    #[test]
    fn a_halt_alone_is_less_than_anything_else_that_changes_unseen() {
        use ConditionType::{ExperimentsReady, InjectionReady, Ready, TracesFlowing, WorkloadsReady};
        let halted = [(Ready, "False", Reason::RolloutHalted), (WorkloadsReady, "False", Reason::RolloutHalted)];
        assert_eq!(of(&halted), Settling::Halted);
        assert_eq!(
            of(&[halted.as_slice(), &[(TracesFlowing, "False", Reason::NoTracesYet)]].concat()),
            Settling::Halted
        );
        let silent = (InjectionReady, "False", Reason::WebhookUnavailable);
        assert_eq!(of(&[halted.as_slice(), &[silent]].concat()), Settling::Unsettled);
        assert_eq!(of(&[(ExperimentsReady, "True", Reason::Ensured)]), Settling::Settled);
    }

    /// It was once looked at every 15 s, twice as often as a healthy one (review A13).
    #[test]
    fn a_server_that_nobody_may_ask_is_at_rest() {
        use ConditionType::{ExperimentsReady, MLflowReady, TracesFlowing};
        let unasked =
            [MLflowReady, ExperimentsReady, TracesFlowing].map(|kind| (kind, "Unknown", Reason::NotObservable));
        assert_eq!(of(&unasked), Settling::Settled);
    }
}
