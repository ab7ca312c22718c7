mod held;
mod messages;
mod rows;
mod traces;

use super::*;
use crate::api::{EnsuredExperiment, WorkloadState};
use crate::core::inject::view::Workload;
use crate::core::wiring::Missing;
use crate::core::wiring::otlp::Endpoint;
use crate::core::workloads::tests::injection_state as standing_of;
use crate::core::workloads::{ListedPod, MergeCaState, RolloutFailure, RolloutProgress, TraceDestination};

const NOW: &str = "2026-11-21T10:30:00Z";

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn tracing(status: Option<AgentTracingStatus>) -> AgentTracing {
    let yaml = "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\n\
                metadata: {name: tracing, namespace: bank-agents, generation: 4}\nspec: {mlflow: {mode: Standalone}}";
    AgentTracing { status, ..serde_yaml::from_str(yaml).unwrap() }
}

fn workload(name: &str, injection_state: InjectionState) -> Assessment {
    Assessment {
        rollout: RolloutProgress {
            complete: true,
            available_since: Some(at("2026-11-21T10:00:00Z")),
            ..RolloutProgress::default()
        },
        experiment: TraceDestination::Name(name.into()),
        ..standing_of(name, injection_state)
    }
}

fn skipped(name: &str, reason: Reason, deliberate: bool) -> Assessment {
    workload(name, InjectionState::Skipped { reason, deliberate, leftover: Vec::new() })
}

/// Everything is well, unless a test says otherwise.
struct Scene {
    mlflow: ConditionUpdate,
    labelled: bool,
    excluded: bool,
    workloads: Vec<Assessment>,
    webhook_silent: bool,
    experiments: Experiments,
    traces: BTreeMap<String, Evidence>,
    refresh: bool,
    takes_otlp: Option<bool>,
    answered: Option<MlflowStatus>,
    rollout_strategy: RolloutStrategy,
    report: Option<RelayReport>,
}

impl Scene {
    fn of(workloads: impl IntoIterator<Item = Assessment>) -> Self {
        Self {
            mlflow: ConditionUpdate::good(Reason::Available, "MLflow answers; see its page with: kubectl port-forward"),
            labelled: true,
            excluded: false,
            workloads: workloads.into_iter().collect(),
            webhook_silent: false,
            experiments: Experiments::default(),
            traces: BTreeMap::new(),
            refresh: true,
            takes_otlp: None,
            answered: None,
            rollout_strategy: RolloutStrategy::default(),
            report: None,
        }
    }

    fn evidence(mut self, name: &str, evidence: Evidence) -> Self {
        self.traces.insert(format!("uid-{name}"), evidence);
        self
    }

    fn status_after(&self, old: Option<AgentTracingStatus>, now: &str) -> AgentTracingStatus {
        self.status_and_states(old, now).0
    }

    fn status_and_states(&self, old: Option<AgentTracingStatus>, now: &str) -> (AgentTracingStatus, States) {
        let found = Findings {
            workspace: None,
            rights: None,
            relay: None,
            report: self.report.as_ref(),
            ready_relay: None,
            relays_all: false,
            authorities: None,
            refused_merge_ca: None,
            accounts: BTreeSet::new(),
            takes_otlp: self.takes_otlp,
            mlflow: self.mlflow.clone(),
            answered: self.answered.clone(),
            labelled: self.labelled,
            excluded: self.excluded,
            workloads: &self.workloads,
            rollout_strategy: self.rollout_strategy,
            webhook_silent: self.webhook_silent,
            experiments: &self.experiments,
            traces: &self.traces,
            refresh_trace_times: self.refresh,
        };
        status(&tracing(old), &found, at(now))
    }

    fn status(&self) -> AgentTracingStatus {
        self.status_after(None, NOW)
    }

    fn condition(&self, kind: ConditionType) -> Condition {
        condition(&self.status(), kind)
    }

    fn ready(&self) -> (String, String) {
        let ready = self.condition(ConditionType::Ready);
        (ready.status, ready.reason)
    }
}

fn condition(status: &AgentTracingStatus, kind: ConditionType) -> Condition {
    status.conditions.iter().find(|c| c.type_ == kind.as_str()).unwrap().clone()
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_server_that_nobody_may_ask_leaves_nothing_pending() {
    let mut unlisted = Scene::of([workload("teller", InjectionState::Current)]);
    unlisted.mlflow = ConditionUpdate::unknown(Reason::NotObservable, "nobody may ask");
    let creating = (Reason::Creating, "is created as soon as MLflow answers".to_owned());
    unlisted.experiments.problems.insert("teller".into(), creating);
    let condition = unlisted.condition(ConditionType::ExperimentsReady);
    assert_eq!((condition.status, condition.reason), is("Unknown", "NotObservable"));
    assert_eq!(unlisted.ready(), is("True", "WaitingForTraces"));
}

#[test]
fn ready_is_the_worst_of_the_others_and_what_passes_by_itself_comes_last() {
    let mut scene = Scene::of([workload("teller", InjectionState::Blocked(Missing::TrackingUri))]);
    scene.mlflow = ConditionUpdate::bad(Reason::Progressing, "MLflow is starting");
    assert_eq!(scene.ready(), is("False", "Progressing"));
    scene.labelled = false;
    assert_eq!(scene.ready(), is("False", "NamespaceNotLabelled"));
    scene.excluded = true;
    assert_eq!(scene.ready(), is("False", "NamespaceExcluded"));
}

#[test]
fn an_experiment_from_elsewhere_is_not_observable() {
    let mut scene = Scene::of([workload("teller", InjectionState::Current)]);
    scene.workloads[0].experiment = TraceDestination::Unknown;
    let condition = scene.condition(ConditionType::TracesFlowing);
    assert_eq!((condition.status, condition.reason), is("Unknown", "NotObservable"));
    assert_eq!(scene.ready(), is("True", "WaitingForTraces"));
}

/// review A13
#[test]
fn more_accounts_than_status_holds_are_told() {
    let found = |accounts: usize| {
        let scene = Scene::of([workload("teller", InjectionState::Current)]);
        let found = Findings {
            mlflow: scene.mlflow.clone(),
            workspace: None,
            rights: Some(ConditionUpdate::good(Reason::Bound, "bound")),
            relay: None,
            report: None,
            ready_relay: None,
            relays_all: false,
            authorities: None,
            refused_merge_ca: None,
            accounts: (0..accounts).map(|n| format!("account-{n}")).collect(),
            takes_otlp: None,
            answered: None,
            labelled: true,
            excluded: false,
            workloads: &scene.workloads,
            rollout_strategy: RolloutStrategy::default(),
            webhook_silent: false,
            experiments: &scene.experiments,
            traces: &scene.traces,
            refresh_trace_times: true,
        };
        let status = status(&tracing(None), &found, at(NOW)).0;
        (condition(&status, ConditionType::RBACReady).reason, status.service_accounts.len())
    };
    assert_eq!(found(1000), ("Bound".to_owned(), 1000));
    assert_eq!(found(1001), ("LimitReached".to_owned(), 1000));
}

#[test]
fn a_transition_time_moves_only_with_the_status() {
    let mut scene = Scene::of([workload("teller", InjectionState::Current)]);
    let first = scene.status();
    scene.mlflow.message = "MLflow 3.11 answers".into();
    let later = scene.status_after(Some(first.clone()), "2026-11-21T10:40:00Z");
    let kind = ConditionType::MLflowReady;
    assert_ne!(condition(&later, kind).message, condition(&first, kind).message);
    assert_eq!(condition(&later, kind).last_transition_time, condition(&first, kind).last_transition_time);
    scene.mlflow = ConditionUpdate::bad(Reason::Unreachable, "");
    let down = scene.status_after(Some(later), "2026-11-21T10:50:00.123Z");
    assert_eq!(condition(&down, kind).last_transition_time.0, at("2026-11-21T10:50:00Z"));
}

#[test]
fn the_same_findings_give_the_same_status_at_any_time() {
    let scene = Scene::of([
        workload("teller", InjectionState::Current),
        workload("rag", InjectionState::Blocked(Missing::TrackingUri)),
    ])
    .evidence("teller", Evidence::Received(at(NOW)));
    let first = scene.status();
    assert_eq!(scene.status_after(Some(first.clone()), "2026-11-22T10:30:00Z"), first);
}

#[test]
fn a_first_trace_time_is_written_at_once_and_a_newer_one_when_it_is_time() {
    let mut scene =
        Scene::of([workload("teller", InjectionState::Current)]).evidence("teller", Evidence::Received(at(NOW)));
    scene.refresh = false;
    let first = scene.status();
    assert_eq!(first.workloads[0].last_trace_time.as_deref(), Some(NOW));
    let mut scene = scene.evidence("teller", Evidence::Received(at("2026-11-21T10:31:00Z")));
    let early = scene.status_after(Some(first), "2026-11-21T10:32:00Z");
    assert_eq!(early.workloads[0].last_trace_time.as_deref(), Some(NOW));
    scene.refresh = true;
    let later = scene.status_after(Some(early), "2026-11-21T10:36:00Z");
    assert_eq!(later.workloads[0].last_trace_time.as_deref(), Some("2026-11-21T10:31:00Z"));
}

#[test]
fn mlflow_and_experiments_stay_when_nobody_answers() {
    let old = AgentTracingStatus {
        mlflow: Some(MlflowStatus { version: "3.10.1".into(), ..MlflowStatus::default() }),
        experiments: vec![EnsuredExperiment { name: "teller".into(), id: "4".into() }],
        ..AgentTracingStatus::default()
    };
    let status = Scene::of([]).status_after(Some(old.clone()), NOW);
    assert_eq!((status.mlflow, status.experiments), (old.mlflow, old.experiments));
}

#[test]
fn workloads_of_one_experiment_say_so() {
    let mut scene = Scene::of([workload("teller", InjectionState::Current), workload("rag", InjectionState::Current)]);
    scene.workloads[1].experiment = TraceDestination::Name("teller".into());
    for row in scene.status().workloads {
        assert!(row.notes[0].starts_with("SharedExperiment: 2 workloads"), "{:?}", row.notes);
    }
}

#[test]
fn suspension_leaves_everything_else_as_it_was() {
    let before = Scene::of([workload("teller", InjectionState::Current)]).status();
    let after = suspended(&tracing(Some(before.clone())), at(NOW));
    assert_eq!(condition(&after, ConditionType::Ready).reason, "Suspended");
    assert_eq!(after.workloads, before.workloads);
    assert_eq!(after.conditions[1..], before.conditions[1..]);
}

#[test]
fn every_message_ends_with_a_command() {
    let deleted = (Reason::ExperimentDeleted, "was deleted".to_owned());
    let mut troubled = Scene::of([
        workload("waiting", InjectionState::Blocked(Missing::TrackingUri)),
        workload("newer", InjectionState::FutureVersion),
        workload("wanting", InjectionState::OutOfDate { hash: "x".into(), patch: Vec::new() }),
        skipped("out", Reason::OptedOut, true),
        skipped("own", Reason::OwnTrackingURI, true),
        skipped("none", Reason::NoContainers, false),
        skipped("windows", Reason::Windows, true),
        skipped("garbled", Reason::RecordUnreadable, false),
    ]);
    troubled.webhook_silent = true;
    let waits = |kind, jobs: usize| {
        let waiting = (0..jobs).map(|n| format!("teller-{n}")).collect();
        Assessment {
            kind,
            merge_ca: MergeCaState { waiting, ..MergeCaState::default() },
            ..workload("teller", InjectionState::Current)
        }
    };
    troubled.experiments.problems.insert("teller".into(), deleted);
    let rolling = Assessment { rollout: RolloutProgress::default(), ..workload("teller", InjectionState::Current) };
    let scenes = [
        troubled,
        Scene::of([]),
        Scene::of([workload("teller", InjectionState::OwnedByOther)]),
        Scene::of([rolling]),
        Scene::of([workload("teller", InjectionState::Current)]).evidence("teller", Evidence::Nothing),
        Scene::of([workload("teller", InjectionState::Current)]).evidence("teller", Evidence::WithoutSpans),
        Scene::of([workload("teller", InjectionState::Current)]).evidence("teller", Evidence::NoExperiment),
        Scene::of([workload("teller", InjectionState::Current)]).evidence("teller", Evidence::Stopped(at(NOW))),
        Scene { labelled: false, ..Scene::of([]) },
        Scene::of([waits(Kind::CronJob, 1)]),
        Scene::of([waits(Kind::CronJob, 100)]),
        Scene::of([waits(Kind::Job, 1)]),
    ];
    for status in scenes.iter().map(Scene::status) {
        let messages = status.conditions.iter().map(|c| &c.message);
        for message in messages.chain(status.workloads.iter().filter_map(|w| w.message.as_ref())) {
            let command = message.rsplit("kubectl ").next().unwrap();
            assert!(command != message && !command.contains("; ") && !command.ends_with('.'), "{message}");
        }
    }
}
