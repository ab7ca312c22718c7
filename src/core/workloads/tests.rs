use serde_json::{Value, json};

use std::collections::BTreeSet;

use super::*;
use crate::api::AgentTracing;
use crate::core::decide::{Decision, decide};
use crate::core::settings::Platform;
use crate::core::settings::Settings;
use crate::core::settings::policy::Policy;

/// A workload of which nothing else is known.
pub(crate) fn injection_state(name: &str, injection_state: InjectionState) -> Assessment {
    Assessment {
        kind: Kind::Deployment,
        name: name.into(),
        uid: format!("uid-{name}"),
        resource_version: "1".into(),
        owned: false,
        paused: false,
        wired: injection_state == InjectionState::Current,
        was_wired: injection_state == InjectionState::Current,
        was_labelled: injection_state == InjectionState::Current,
        before: None,
        unanswered: false,
        created: None,
        last_manager: None,
        merge_ca: MergeCaState::default(),
        injection_state,
        rollout: RolloutProgress::default(),
        experiment: TraceDestination::Unknown,
        otlp: None,
        relay: None,
        notes: Vec::new(),
        touch: None,
        record: None,
        pods: String::new(),
        jobs: Vec::new(),
        account: "default".into(),
        ended: None,
        pod: None,
    }
}

fn policy(answered: bool) -> Policy {
    let status = if answered {
        "status: {mlflow: {url: 'http://tracing-mlflow.bank-agents.svc:5500', version: 3.10.1, workspaces: false, source: Service}}"
    } else {
        ""
    };
    let yaml = format!(
        "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\n\
         metadata: {{name: tracing, namespace: bank-agents}}\nspec: {{mlflow: {{mode: Standalone}}}}\n{status}"
    );
    Policy::of(&serde_yaml::from_str::<AgentTracing>(&yaml).unwrap())
}

fn with(mut policy: Policy, change: impl FnOnce(&mut Settings)) -> Policy {
    change(&mut policy.settings);
    policy
}

fn deployment(env: Value) -> Value {
    json!({
        "metadata": {"name": "teller", "uid": "u-1", "resourceVersion": "7", "generation": 2},
        "spec": {
            "selector": {"matchLabels": {"app": "teller"}},
            "template": {"metadata": {"labels": {"app": "teller"}}, "spec": {"containers": [{"name": "agent", "env": env}]}},
        },
    })
}

fn assessment(deployment: &Value, policies: &[Policy], labelled: bool) -> Option<Assessment> {
    let context = SelectionContext {
        namespace: "bank-agents",
        injection_enabled: labelled,
        platform: &Platform::default(),
        tokenless: &BTreeSet::new(),
        policies,
        renews: false,
    };
    assess(Kind::Deployment, &deployment.to_string(), "tracing", &context).unwrap()
}

fn wired(mut deployment: Value) -> Value {
    let InjectionState::OutOfDate { patch, .. } =
        assessment(&deployment, &[policy(true)], true).unwrap().injection_state
    else {
        panic!("already wired")
    };
    json_patch::patch(&mut deployment, &patch).unwrap();
    deployment
}

#[test]
fn a_deployment_waits_until_mlflow_answered_then_wants_wiring_then_is_current() {
    let plain = deployment(json!([]));
    let waiting = InjectionState::Blocked(Missing::TrackingUri);
    assert_eq!(assessment(&plain, &[policy(false)], true).unwrap().injection_state, waiting);
    let current = assessment(&wired(plain), &[policy(true)], true).unwrap();
    assert_eq!(current.injection_state, InjectionState::Current);
    assert_eq!(current.experiment, TraceDestination::Name("teller".into()));
    assert!(current.wired && current.record.is_some());
}

#[test]
fn a_wired_deployment_of_an_unlabelled_namespace_is_a_stray() {
    let stray = assessment(&wired(deployment(json!([]))), &[policy(true)], false).unwrap();
    assert!(matches!(stray.injection_state, InjectionState::ToRemove(patch) if !patch.is_empty()));
    assert_eq!(assessment(&deployment(json!([])), &[policy(true)], false), None);
}

#[test]
fn an_opted_out_deployment_is_reported_and_not_counted() {
    let mut out = deployment(json!([]));
    out["metadata"]["labels"] = json!({"agenttracing.dev/inject": "false"});
    let injection_state = assessment(&out, &[policy(true)], true).unwrap().injection_state;
    assert!(matches!(injection_state, InjectionState::Skipped { reason: Reason::OptedOut, deliberate: true, .. }));
}

#[test]
fn the_users_own_experiment_is_where_traces_go() {
    let own = |name: &str, value: Value| {
        let mut entry = json!({"name": name});
        entry.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        assessment(&deployment(json!([entry])), &[policy(true)], true).unwrap().experiment
    };
    assert_eq!(own("MLFLOW_EXPERIMENT_NAME", json!({"value": "vault"})), TraceDestination::Name("vault".into()));
    assert_eq!(own("MLFLOW_EXPERIMENT_ID", json!({"value": "12"})), TraceDestination::Id("12".into()));
    assert_eq!(own("MLFLOW_EXPERIMENT_NAME", json!({"value": "$(APP)"})), TraceDestination::Unknown);
    assert_eq!(own("MLFLOW_EXPERIMENT_NAME", json!({"valueFrom": {}})), TraceDestination::Unknown);
    // review A7: what the process reads, not what the template spells.
    assert_eq!(
        own("MLFLOW_EXPERIMENT_NAME", json!({"value": "cash$$flow"})),
        TraceDestination::Name("cash$flow".into())
    );
    assert_eq!(own("MLFLOW_EXPERIMENT_NAME", json!({"value": "$$(APP)"})), TraceDestination::Name("$(APP)".into()));
}

/// review A7, case B29
#[test]
fn a_dollar_in_an_experiments_name_is_looked_for_as_the_agent_writes_it() {
    let mut policy = policy(true);
    policy.settings.experiment.name = "cash$$flow $(POD_NAME)".into();
    for kind in [Kind::Deployment, Kind::Pod] {
        let pod = json!({"containers": [{"name": "agent", "image": "i"}]});
        let spec = if kind == Kind::Pod { pod } else { json!({"template": {"spec": pod}}) };
        let labels = json!({"agenttracing.dev/inject": "true"});
        let mut object = json!({"metadata": {"name": "teller", "uid": "u-1", "labels": labels}, "spec": spec});
        let platform = Platform::default();
        let policies = [policy.clone()];
        let none = BTreeSet::new();
        let context = SelectionContext {
            namespace: "bank-agents",
            injection_enabled: true,
            platform: &platform,
            tokenless: &none,
            policies: &policies,
            renews: false,
        };
        for round in ["unwired", "wired"] {
            let text = object.to_string();
            let experiment = assess(kind, &text, "tracing", &context).unwrap().unwrap().experiment;
            let unknown_yet = kind == Kind::Pod && round == "unwired";
            assert!(
                unknown_yet || experiment == TraceDestination::Name("cash$$flow $(POD_NAME)".into()),
                "{kind:?}: {experiment:?}"
            );
            let decision = decide(&Workload::parse(kind, &text).unwrap(), &context);
            let Decision::Wire { injection, .. } = decision else { panic!("{decision:?}") };
            json_patch::patch(&mut object, &injection.patch).unwrap();
        }
    }
}

#[test]
fn the_younger_of_two_agent_tracings_sees_the_workload_elsewhere() {
    let older = with(policy(true), |settings| (settings.name, settings.created) = ("elder".into(), -1));
    let injection_state = assessment(&deployment(json!([])), &[policy(true), older], true).unwrap().injection_state;
    assert_eq!(injection_state, InjectionState::OwnedByOther);
}

#[test]
fn a_rollout_is_complete_when_the_deployment_controller_says_so_for_this_generation() {
    let status = |observed, reason: &str| {
        let json = json!({
            "observedGeneration": observed, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1,
            "conditions": [
                {"type": "Progressing", "status": "True", "reason": reason, "lastUpdateTime": "2026-11-21T10:00:09Z"},
                {"type": "Available", "status": "True", "lastTransitionTime": "2026-11-21T10:00:02Z"},
            ],
        });
        progress(Kind::Deployment, &json!({"metadata": {"generation": 2}, "spec": {}, "status": json}).to_string())
            .unwrap()
    };
    assert!(!status(1, "NewReplicaSetAvailable").complete);
    assert!(!status(2, "ReplicaSetUpdated").complete);
    let done = status(2, "NewReplicaSetAvailable");
    assert!(done.complete);
    assert_eq!(done.available_since, Some("2026-11-21T10:00:09Z".parse().unwrap()));
}

#[test]
fn what_has_no_rollout_is_complete_and_what_has_one_follows_its_own_words() {
    let progress = |kind, spec: Value, status: Value| {
        let json = json!({"metadata": {"generation": 2}, "spec": spec, "status": status}).to_string();
        let RolloutProgress { complete, wanted, available, .. } = progress(kind, &json).unwrap();
        (complete, wanted, available)
    };
    let sets = |updated: &str| {
        json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 2,
        "currentRevision": "a", "updateRevision": updated})
    };
    assert_eq!(progress(Kind::StatefulSet, json!({"replicas": 3}), sets("b")), (false, 3, 2));
    assert_eq!(progress(Kind::StatefulSet, json!({"replicas": 3}), sets("a")), (true, 3, 2));
    let partition = json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}});
    assert_eq!(progress(Kind::StatefulSet, partition, sets("b")), (true, 3, 2));
    // Its controller never says that the two revisions are one.
    let on_delete = |replicas: u8| json!({"replicas": replicas, "updateStrategy": {"type": "OnDelete"}});
    assert_eq!(progress(Kind::StatefulSet, on_delete(2), sets("b")), (false, 2, 2));
    assert_eq!(progress(Kind::StatefulSet, on_delete(1), sets("b")), (true, 1, 2));
    let nodes = |updated| json!({"observedGeneration": 2, "desiredNumberScheduled": 4, "updatedNumberScheduled": updated, "numberAvailable": 3});
    assert_eq!(progress(Kind::DaemonSet, json!({}), nodes(3)), (false, 4, 3));
    assert_eq!(progress(Kind::DaemonSet, json!({}), nodes(4)), (true, 4, 3));
    assert_eq!(progress(Kind::CronJob, json!({}), json!({})), (true, 0, 0));
}

#[test]
fn a_job_is_never_changed_after_its_creation() {
    let mut job = deployment(json!([]));
    let assess_job = |job: &Value, answered| {
        let context = SelectionContext {
            namespace: "bank-agents",
            injection_enabled: true,
            platform: &Platform::default(),
            tokenless: &BTreeSet::new(),
            policies: &[policy(answered)],
            renews: false,
        };
        assess(Kind::Job, &job.to_string(), "tracing", &context).unwrap().map(|assessment| assessment.injection_state)
    };
    let missed = InjectionState::Skipped { reason: Reason::CreatedUnwired, deliberate: false, leftover: Vec::new() };
    assert_eq!(assess_job(&job, true), Some(missed.clone()));
    assert_eq!(assess_job(&job, false), Some(missed));
    let of_yesterday = wired(job.clone());
    assert_eq!(assess_job(&of_yesterday, true), Some(InjectionState::Current));
    job["status"] = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    assert_eq!(assess_job(&job, true), None, "it ended unwired");
    let mut done = of_yesterday;
    done["status"] =
        json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "2026-11-21T10:00:00Z"}]});
    assert_eq!(assess_job(&done, true), Some(InjectionState::Current), "evidence, review A9");
}

#[test]
fn a_touch_that_never_brought_anything_was_undone_by_nobody() {
    let mut touched = deployment(json!([]));
    touched["metadata"]["annotations"] = json!({"agenttracing.dev/touch": "abc/1/1000"});
    assert!(assessment(&touched, &[policy(true)], true).unwrap().unanswered);
    touched["metadata"]["labels"] = json!({"agenttracing.dev/wired": "tracing"});
    assert!(!assessment(&touched, &[policy(true)], true).unwrap().unanswered, "stripped");
    assert!(!assessment(&deployment(json!([])), &[policy(true)], true).unwrap().unanswered, "never touched");
}

/// Review B2: whoever wrote touches on twenty workloads held all places of the cluster.
#[test]
fn a_touch_that_somebody_else_wrote_counts_for_nothing() {
    let mut touched = deployment(json!([]));
    touched["metadata"]["annotations"] = json!({(names::ANNOTATION_TOUCH): "abc/1/1000"});
    let by = |manager: &str, fields: Value| json!({"manager": manager, "operation": "Update", "fieldsV1": fields});
    let touch = json!({"f:metadata": {"f:annotations": {(format!("f:{}", names::ANNOTATION_TOUCH)): {}}}});
    let other = json!({"f:metadata": {"f:annotations": {"f:other": {}}}});
    for (managers, counts) in [
        (vec![], true),
        (vec![by(names::FIELD_MANAGER, touch.clone()), by("kubectl", other.clone())], true),
        (vec![by(names::FIELD_MANAGER, other), by("kubectl-annotate", touch.clone())], false),
        (vec![by("kubectl-create", touch)], false),
    ] {
        touched["metadata"]["managedFields"] = json!(managers);
        assert_eq!(assessment(&touched, &[policy(true)], true).unwrap().touch.is_some(), counts, "{managers:?}");
    }
}

#[test]
fn a_generated_name_is_the_objects_and_its_stem_the_experiments() {
    let mut teller = deployment(json!([]));
    teller["metadata"]["generateName"] = json!("teller-");
    teller["metadata"]["name"] = json!("teller-x7f2k");
    let assessment = assessment(&teller, &[policy(true)], true).unwrap();
    assert_eq!(assessment.name, "teller-x7f2k");
    assert_eq!(assessment.experiment, TraceDestination::Name("teller".into()));
}

mod unselected;
