//! What is said of a workload: state, reason and message of its [`Cause`]. Each message is one plain sentence that ends with the
//! next command to type.

mod held;
mod merge_ca;
mod skipped;

use super::TracingRef;
use crate::api::{Reason, WorkloadState};
use crate::core::kubectl::Kubectl;
use crate::core::wiring::Missing;
use crate::core::workloads::Assessment;
use crate::core::workloads::cause::Cause;
use crate::names;
pub(super) use held::{relay_refused, spool_full, traces_held};
pub(super) use merge_ca::jobs_wait;

/// What is said of a workload whose pods are replaced by nobody but their owner.
const ON_DELETE: &str = "Its strategy is OnDelete: its pods get the wiring when somebody deletes them";

impl Cause<'_> {
    /// The state of its row; `None` where it has no row.
    pub(super) fn state(&self, assessment: &Assessment) -> Option<WorkloadState> {
        Some(match self {
            Cause::Injected => WorkloadState::Injected,
            Cause::RollingOut => WorkloadState::RollingOut,
            Cause::WithoutInitContainer(_) if assessment.rollout.complete => WorkloadState::Injected,
            Cause::WithoutInitContainer(_) if assessment.awaits_deletion() => WorkloadState::Outdated,
            Cause::WithoutInitContainer(_) => WorkloadState::RollingOut,
            Cause::Stuck | Cause::JobsWait => WorkloadState::Halted,
            Cause::Blocked(_) => WorkloadState::Pending,
            Cause::AwaitsDeletion | Cause::FutureVersion | Cause::Manual | Cause::ManualRemoval => {
                WorkloadState::Outdated
            }
            Cause::Contested => WorkloadState::Contested,
            Cause::Paused | Cause::BehindHalt(_) | Cause::MlflowSilent | Cause::Queued => match assessment.wired {
                true => WorkloadState::Outdated,
                false => WorkloadState::Pending,
            },
            Cause::Skipped(_) | Cause::OwnedByOther => WorkloadState::Skipped,
            Cause::Removal => return None,
        })
    }

    /// The reason of its row, where the state does not say all. Of pods that do not come back it is the kubelet's own word.
    pub(super) fn reason(&self, assessment: &Assessment) -> Option<String> {
        let reason = match self {
            Cause::Stuck => {
                return Some(assessment.rollout.failure.as_ref().map(|f| f.reason.clone()).unwrap_or_default());
            }
            Cause::JobsWait => Reason::MergeCAImage,
            Cause::WithoutInitContainer(why) => merge_ca::reason(*why),
            Cause::Blocked(_) => Reason::WaitingForMLflow,
            Cause::Skipped(reason) => *reason,
            Cause::OwnedByOther => Reason::Conflict,
            Cause::Injected
            | Cause::RollingOut
            | Cause::AwaitsDeletion
            | Cause::FutureVersion
            | Cause::Paused
            | Cause::Manual
            | Cause::Contested
            | Cause::BehindHalt(_)
            | Cause::MlflowSilent
            | Cause::Queued
            | Cause::Removal
            | Cause::ManualRemoval => return None,
        };
        Some(reason.as_str().to_owned())
    }

    /// The message of its row, where there is something to say.
    #[expect(clippy::too_many_lines, reason = "a table: one arm for each cause")]
    pub(super) fn message(&self, tracing_ref: &TracingRef<'_>, assessment: &Assessment) -> Option<String> {
        let namespace = tracing_ref.namespace;
        let resource = assessment.resource();
        let on_it = |what: &str| Kubectl::new(what).namespace(namespace).arg(&resource);
        let failure = || assessment.rollout.failure.as_ref().map(|failure| failure.message.as_str());
        Some(match self {
            Cause::Injected | Cause::Removal => return None,
            Cause::Stuck => format!(
                "It does not come back with the wiring ({}), so no other workload is changed; see why: {}",
                failure().unwrap_or_default(),
                Kubectl::new("describe pods").namespace(namespace).selector(&assessment.pods)
            ),
            Cause::JobsWait => merge_ca::why_jobs_wait(namespace, assessment),
            Cause::WithoutInitContainer(why) => {
                let why = merge_ca::without(*why, tracing_ref, assessment);
                match assessment.awaits_deletion() {
                    // Only their deletion brings it about: the remedy for later comes after it.
                    true => format!("{ON_DELETE} ({}). {why}", deletion(namespace, assessment)),
                    false => why,
                }
            }
            Cause::RollingOut => {
                let why = failure().map(|failure| format!(" ({failure})")).unwrap_or_default();
                format!("Its pods are being replaced{why}; watch with: {}", on_it("rollout status"))
            }
            Cause::AwaitsDeletion => format!("{ON_DELETE}: {}", deletion(namespace, assessment)),
            Cause::Blocked(missing) => {
                let what = match missing {
                    Missing::TrackingUri => "MLflow has answered once".to_owned(),
                    Missing::ExperimentId => "its experiment exists in MLflow".to_owned(),
                    Missing::Relay => "the relay is ready".to_owned(),
                    Missing::Binding => format!("service account {} may write to MLflow", assessment.account),
                };
                format!("It is wired as soon as {what}; watch with: {}", tracing_ref.command("get").arg("--watch"))
            }
            Cause::FutureVersion => {
                format!("A newer operator wired it; upgrade this one: {}", operator("get deployment"))
            }
            Cause::Paused => format!("It is paused and waits; resume it with: {}", on_it("rollout resume")),
            Cause::Manual => format!(
                "It gets its wiring with its next own change, as injection.rollout.policy Manual says; change it now with: {}",
                match assessment.kind.rolls() {
                    true => on_it("rollout restart"),
                    false => on_it("annotate").arg("--overwrite").arg(&format!("{}=now", names::ANNOTATION_TOUCH)),
                }
            ),
            Cause::ManualRemoval => format!(
                "It is not selected any more and loses its wiring with its next own change, as injection.rollout.policy Manual says; \
                 change it now with: {}",
                on_it("rollout restart")
            ),
            // Who only takes out owns no field: the API server does not tell of them.
            Cause::Contested => format!(
                "The wiring was taken out three times within ten minutes, so it is left alone until the spec changes; last \
                 written, beside us, by {}: let it keep what it did not write, or opt out: {}",
                assessment.last_manager.as_deref().unwrap_or("somebody"),
                on_it("label").arg(&format!("{}=false", names::LABEL_INJECT))
            ),
            Cause::BehindHalt(culprit) => format!(
                "It waits, since {} does not come back with the wiring; see why: {}",
                culprit.name,
                Kubectl::new("describe").namespace(namespace).arg(&culprit.resource())
            ),
            Cause::MlflowSilent => format!(
                "It waits until MLflow answers, since agents look for it once, when they start; see why it does not: {}",
                tracing_ref.command("describe")
            ),
            Cause::Queued => format!("It waits for its turn; watch with: {}", on_it("get").arg("--watch")),
            Cause::Skipped(reason) => skipped::why(namespace, assessment, *reason),
            Cause::OwnedByOther => format!(
                "An older AgentTracing of this namespace has it; see which: {}",
                Kubectl::new("get agenttracing").namespace(namespace).arg("--sort-by=.metadata.creationTimestamp")
            ),
        })
    }
}

/// A command about the operator's own Deployment or pods, wherever they are.
fn operator(what: &str) -> Kubectl {
    Kubectl::new(what).arg("-A").selector(&names::operator_selector())
}

/// Never a command that deletes more than the workload's own pods.
fn deletion(namespace: &str, assessment: &Assessment) -> Kubectl {
    match Kubectl::selects(&assessment.pods) {
        true => Kubectl::new("delete pods").namespace(namespace).selector(&assessment.pods),
        false => Kubectl::new("get").namespace(namespace).arg(&assessment.resource()).jsonpath(".spec.selector"),
    }
}
