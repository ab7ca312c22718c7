//! What is the case with a workload among the others of its AgentTracing, found once: its row in status, condition
//! `WorkloadsReady` and events say it and find out nothing themselves.

use jiff::Timestamp;

use super::rollout::{TouchBlocker, halt, is_stuck, next_touch};
use super::{Assessment, InjectionState, RolloutProgress};
use crate::api::{Reason, RolloutPolicy};
use crate::core::settings::policy::RolloutStrategy;
use crate::core::wiring::Missing;
use crate::core::wiring::parts::FallbackReason;

/// What a workload's cause depends on besides itself.
#[derive(Clone, Copy, Debug)]
pub struct Fleet<'a> {
    /// The workload that halts the others.
    pub halted_by: Option<&'a Assessment>,
    rollout_strategy: RolloutStrategy,
    mlflow_answers: bool,
    now: i64,
}

/// Why a workload is as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause<'a> {
    /// Wired, current and running.
    Injected,
    /// Its pods are being replaced.
    RollingOut,
    /// Its strategy is `OnDelete`, and its pods are not replaced yet.
    AwaitsDeletion,
    /// It does without the init container of its certificate authorities.
    WithoutInitContainer(FallbackReason),
    /// Jobs of it wait for that init container.
    JobsWait,
    /// It was touched and does not come back.
    Stuck,
    /// A fact is missing.
    Blocked(Missing),
    /// A newer operator wired it.
    FutureVersion,
    /// It is to be changed, and is paused.
    Paused,
    /// It is to be changed, and its owner rolls it.
    Manual,
    /// It is to be changed, and somebody takes the wiring out again and again.
    Contested,
    /// It is to be changed, and this one halts all others.
    BehindHalt(&'a Assessment),
    /// It is to be changed when MLflow answers.
    MlflowSilent,
    /// It is to be changed when its turn comes.
    Queued,
    /// It is not wired.
    Skipped(Reason),
    /// An older AgentTracing has it.
    OwnedByOther,
    /// It is not selected any more and loses its wiring now.
    Removal,
    /// It is not selected any more and loses its wiring when its owner rolls it.
    ManualRemoval,
}

impl<'a> Fleet<'a> {
    /// What concerns all workloads of an AgentTracing.
    pub fn of(
        workloads: &'a [Assessment],
        rollout_strategy: RolloutStrategy,
        mlflow_answers: bool,
        now: Timestamp,
    ) -> Self {
        let now = now.as_second();
        Self { halted_by: halt(workloads, now), rollout_strategy, mlflow_answers, now }
    }

    /// That workload, where its pods do not come back: it halts the others also while none of them waits.
    pub fn halted_by_stuck(&self) -> Option<&'a Assessment> {
        self.halted_by.filter(|workload| is_stuck(workload, self.now))
    }

    /// Why a workload is as it is.
    pub fn cause(&self, assessment: &Assessment) -> Cause<'a> {
        match &assessment.injection_state {
            // Nothing is rolled by the operator then, also not to take something out.
            InjectionState::ToRemove(_)
                if self.rollout_strategy.policy == RolloutPolicy::Manual && assessment.rollout.has_to_lose() =>
            {
                Cause::ManualRemoval
            }
            InjectionState::ToRemove(_) => Cause::Removal,
            InjectionState::OwnedByOther => Cause::OwnedByOther,
            InjectionState::Blocked(missing) => Cause::Blocked(*missing),
            InjectionState::FutureVersion => Cause::FutureVersion,
            InjectionState::Skipped { reason, .. } => Cause::Skipped(*reason),
            InjectionState::Current => self.of_current(assessment),
            InjectionState::OutOfDate { .. } => self.of_out_of_date(assessment),
        }
    }

    fn of_current(&self, assessment: &Assessment) -> Cause<'a> {
        let RolloutProgress { complete, on_delete, .. } = assessment.rollout;
        match assessment.merge_ca.fallback {
            _ if is_stuck(assessment, self.now) => Cause::Stuck,
            _ if assessment.has_waiting_jobs() => Cause::JobsWait,
            Some(why) => Cause::WithoutInitContainer(why),
            None if complete => Cause::Injected,
            None if on_delete => Cause::AwaitsDeletion,
            None => Cause::RollingOut,
        }
    }

    fn of_out_of_date(&self, assessment: &Assessment) -> Cause<'a> {
        match next_touch(assessment, self.rollout_strategy, self.now) {
            // The row keeps it: see `recall`.
            Err(TouchBlocker::Contested) => Cause::Contested,
            // They wait on, whatever becomes of the template.
            _ if assessment.has_waiting_jobs() => Cause::JobsWait,
            Err(TouchBlocker::Paused) => Cause::Paused,
            Err(TouchBlocker::Manual) => Cause::Manual,
            Err(TouchBlocker::UpToDate) | Ok(_) => match self.halted_by {
                Some(culprit) => Cause::BehindHalt(culprit),
                None if !self.mlflow_answers => Cause::MlflowSilent,
                None => Cause::Queued,
            },
        }
    }
}

/// The workload that is to blame where the rollout is halted: one that does not come back, or one whose Jobs wait.
pub fn culprit(workloads: &[Assessment], now: Timestamp) -> Option<&Assessment> {
    halt(workloads, now.as_second()).or_else(|| workloads.iter().find(|workload| workload.has_waiting_jobs()))
}

impl Assessment {
    /// Whether Jobs of it wait for an init container whose image cannot be pulled or started.
    pub fn has_waiting_jobs(&self) -> bool {
        !self.merge_ca.waiting.is_empty()
    }

    /// Whether its template is current and its pods follow when somebody deletes them.
    pub fn awaits_deletion(&self) -> bool {
        let RolloutProgress { complete, on_delete, .. } = self.rollout;
        self.injection_state == InjectionState::Current && on_delete && !complete
    }

    /// Whether its template is to be changed.
    pub fn is_out_of_date(&self) -> bool {
        matches!(self.injection_state, InjectionState::OutOfDate { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::WorkloadState;
    use crate::core::workloads::tests::injection_state;
    use crate::core::workloads::{MergeCaState, RolloutFailure};

    const NOW: i64 = 1_800_000_000;

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn out_of_date(name: &str) -> Assessment {
        injection_state(name, InjectionState::OutOfDate { hash: "h".into(), patch: Vec::new() })
    }

    fn with_waiting_jobs(assessment: Assessment) -> Assessment {
        let merge_ca = MergeCaState { waiting: vec!["nightly-1".into()], ..MergeCaState::default() };
        Assessment { merge_ca, ..assessment }
    }

    fn stuck(name: &str) -> Assessment {
        let failure = RolloutFailure { reason: "CrashLoopBackOff".into(), message: "x".into(), since: Some(now()) };
        Assessment {
            touch: Some(format!("h/0/{NOW}")),
            rollout: RolloutProgress { failure: Some(failure), wanted: 1, deadline: 600, ..RolloutProgress::default() },
            ..injection_state(name, InjectionState::Current)
        }
    }

    fn causes(workloads: &[Assessment], mlflow_answers: bool) -> Vec<Cause<'_>> {
        let fleet = Fleet::of(workloads, RolloutStrategy::default(), mlflow_answers, now());
        workloads.iter().map(|assessment| fleet.cause(assessment)).collect()
    }

    #[test]
    fn what_waits_says_for_what() {
        let all = [out_of_date("rag"), stuck("teller")];
        assert_eq!(causes(&all, true), [Cause::BehindHalt(&all[1]), Cause::Stuck]);
        assert_eq!(causes(&all, false)[0], Cause::BehindHalt(&all[1]), "which MLflow alone would not end");
        assert_eq!(causes(&all[..1], false), [Cause::MlflowSilent]);
        assert_eq!(causes(&all[..1], true), [Cause::Queued]);
        let paused = Assessment { paused: true, ..out_of_date("rag") };
        assert_eq!(causes(&[paused, stuck("teller")], true)[0], Cause::Paused, "nobody else keeps it");
    }

    /// The condition names its Jobs and points at the row, which once said that it waits for its turn.
    #[test]
    fn jobs_wait_whether_or_not_their_template_is_to_be_changed() {
        let current = with_waiting_jobs(injection_state("nightly", InjectionState::Current));
        assert_eq!(causes(&[current, with_waiting_jobs(out_of_date("daily"))], true), [Cause::JobsWait; 2]);
        // Only the row in status remembers that it is contested.
        let before = Some(WorkloadState::Contested);
        let contested = Assessment { before, ..with_waiting_jobs(out_of_date("daily")) };
        assert_eq!(causes(&[contested], true), [Cause::Contested]);
    }

    #[test]
    fn a_halt_has_one_to_blame() {
        let all = [with_waiting_jobs(injection_state("a-job", InjectionState::Current)), stuck("teller")];
        assert_eq!(culprit(&all, now()).map(|culprit| culprit.name.as_str()), Some("teller"));
        assert_eq!(culprit(&all[..1], now()).map(|culprit| culprit.name.as_str()), Some("a-job"));
        assert_eq!(culprit(&[out_of_date("rag")], now()), None);
    }
}
