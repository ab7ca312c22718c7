//! What is said of traces.

use super::*;

#[test]
fn wired_without_a_trace_is_ready_and_waits() {
    let scene = Scene::of([workload("teller", InjectionState::Current)]);
    assert_eq!(scene.ready(), is("True", "WaitingForTraces"));
    let received = scene.evidence("teller", Evidence::Received(at(NOW)));
    assert_eq!(received.ready(), is("True", "TracesReceived"));
}

#[test]
fn silence_is_told_after_ten_minutes_and_never_lowers_ready() {
    let mut scene = Scene::of([workload("teller", InjectionState::Current)]).evidence("teller", Evidence::Nothing);
    assert_eq!(scene.condition(ConditionType::TracesFlowing).reason, "NoTracesFrom");
    assert_eq!(scene.ready(), is("True", "WaitingForTraces"));
    scene.workloads[0].rollout.available_since = Some(at("2026-11-21T10:20:01Z"));
    assert_eq!(scene.condition(ConditionType::TracesFlowing).reason, "NoTracesYet");
}

#[test]
fn silence_repeats_what_the_templates_say_about_it() {
    let note = |text: &str| vec![text.to_owned()];
    let proxied =
        Assessment { notes: note("Proxied agent: its proxy gets them"), ..workload("teller", InjectionState::Current) };
    let off =
        Assessment { notes: note("OTEL_SDK_DISABLED agent: no traces"), ..workload("vault", InjectionState::Current) };
    let plain = workload("rag", InjectionState::Current);
    let scene = Scene::of([proxied, off, plain])
        .evidence("teller", Evidence::Nothing)
        .evidence("vault", Evidence::Nothing)
        .evidence("rag", Evidence::Nothing);
    let message = scene.condition(ConditionType::TracesFlowing).message;
    let seen =
        "minutes: teller: Proxied agent: its proxy gets them; vault: OTEL_SDK_DISABLED agent: no traces; is it in use";
    assert!(message.contains(seen), "{message}");
}

/// Case B10: the slim package finds no experiment by its name, and says nothing about it.
#[test]
fn silence_names_the_slim_package_where_ids_are_not_pinned() {
    let scene = Scene::of([workload("teller", InjectionState::Current)]).evidence("teller", Evidence::Nothing);
    let message = scene.condition(ConditionType::TracesFlowing).message;
    assert!(message.contains("package mlflow-tracing in place of mlflow it needs experiment.pin: true"), "{message}");
}

#[test]
fn where_otlp_has_no_path_silence_of_an_agent_that_speaks_it_lowers_ready() {
    let url = "https://mlflow.redhat-ods-applications.svc:8443/mlflow".to_owned();
    let answered =
        MlflowStatus { url, version: "3.14.0".into(), workspaces: true, source: "MLflowStatusAddress".into() };
    let env = serde_json::json!([{"name": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "value": "$(MLFLOW_TRACKING_URI)/v1/traces"}]);
    let speaks = Assessment { otlp: Some(Box::new(endpoint(env))), ..workload("courier", InjectionState::Current) };
    let silent = Scene::of([speaks]).evidence("courier", Evidence::Nothing);
    let mut scene = Scene { takes_otlp: Some(false), answered: Some(answered), ..silent };
    assert_eq!(scene.ready(), is("False", "OTLPPathMissing"));
    let message = scene.condition(ConditionType::TracesFlowing).message;
    let command = "kubectl set env -n bank-agents deployment/courier -c agent \
                   OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://mlflow.redhat-ods-applications.svc:8443/v1/traces \
                   MLFLOW_ENABLE_OTLP_EXPORTER=false";
    assert!(message.ends_with(command), "{message}");
    scene.workloads[0].kind = Kind::Job;
    let message = scene.condition(ConditionType::TracesFlowing).message;
    assert!(message.ends_with("in what makes it: kubectl get -n bank-agents job/courier -o yaml"), "{message}");
    scene.takes_otlp = Some(true);
    assert_eq!(scene.ready(), is("True", "WaitingForTraces"));
}

/// The endpoint that a container's environment names.
fn endpoint(env: serde_json::Value) -> Endpoint {
    let template = serde_json::json!({"spec": {"containers": [{"name": "agent", "env": env}]}});
    let object = serde_json::json!({"metadata": {"name": "courier"}, "spec": {"selector": {}, "template": template}});
    Endpoint::of(&Workload::read(Kind::Deployment, &object).unwrap()).unwrap()
}

// Section 3, point 4: any silent agent was told to speak OTLP, which broke one that speaks MLflow's own protocol.
#[test]
fn silence_of_an_agent_that_does_not_speak_otlp_says_nothing_of_otlp() {
    let url = "https://mlflow.redhat-ods-applications.svc:8443/mlflow".to_owned();
    let answered = MlflowStatus { url, version: "3.14.0".into(), ..MlflowStatus::default() };
    let silent = Scene::of([workload("courier", InjectionState::Current)]).evidence("courier", Evidence::Nothing);
    let scene = Scene { takes_otlp: Some(false), answered: Some(answered), ..silent };
    assert_eq!(scene.ready(), is("True", "WaitingForTraces"));
    let flowing = scene.condition(ConditionType::TracesFlowing);
    assert_eq!(flowing.reason, "NoTracesFrom");
    assert!(!flowing.message.contains("OTEL_"), "{}", flowing.message);
}

// Section 3, point 2.
#[test]
fn traces_that_came_regularly_and_have_stopped_lower_ready_and_say_since_when() {
    let last = at("2026-11-21T10:20:00Z");
    let scene = Scene::of([workload("teller", InjectionState::Current), workload("rag", InjectionState::Current)])
        .evidence("teller", Evidence::Stopped(last))
        .evidence("rag", Evidence::Received(at(NOW)));
    assert_eq!(scene.ready(), is("False", "TracesStopped"));
    let message = scene.condition(ConditionType::TracesFlowing).message;
    assert!(message.contains("experiment teller, the last one at 2026-11-21T10:20:00Z"), "{message}");
    let row = scene.status().workloads.into_iter().find(|w| w.name == "teller").unwrap();
    assert_eq!(row.last_trace_time.as_deref(), Some("2026-11-21T10:20:00Z"));
    assert_eq!(stopped_at(&row), Some(last), "a new leader goes on from there");
}

// Section 3, point 6: an experiment deleted under a running agent, and traces said to arrive from it.
#[test]
fn no_trace_is_said_to_arrive_in_an_experiment_that_was_deleted() {
    let mut scene = Scene::of([workload("teller", InjectionState::Current)]).evidence("teller", Evidence::NoExperiment);
    let deleted = (Reason::ExperimentDeleted, "was deleted".to_owned());
    scene.experiments.problems.insert("teller".into(), deleted);
    assert_eq!(scene.ready(), is("False", "ExperimentDeleted"));
    assert_eq!(scene.condition(ConditionType::TracesFlowing).reason, "NoTracesFrom");
}

// Section 3, point 8.
#[test]
fn one_silent_agent_of_four_does_not_undo_what_the_others_show() {
    let mut scene = Scene::of(["a", "b", "c", "d"].map(|name| workload(name, InjectionState::Current)));
    for name in ["a", "b", "c"] {
        scene = scene.evidence(name, Evidence::Received(at(NOW)));
    }
    let scene = scene.evidence("d", Evidence::Nothing);
    assert_eq!(scene.ready(), is("True", "TracesReceived"));
    let flowing = scene.condition(ConditionType::TracesFlowing);
    assert_eq!((flowing.status, flowing.reason), is("False", "NoTracesFrom"));
    assert!(flowing.message.starts_with("No trace from d "), "{}", flowing.message);
}

// Section 3, the last sentence: a trace is evidence of an experiment, not of one of the workloads that log to it.
#[test]
fn what_arrives_in_a_shared_experiment_is_said_of_the_experiment() {
    let mut scene = Scene::of([workload("teller", InjectionState::Current), workload("rag", InjectionState::Current)])
        .evidence("teller", Evidence::Received(at(NOW)))
        .evidence("rag", Evidence::Received(at(NOW)));
    scene.workloads.iter_mut().for_each(|w| w.experiment = TraceDestination::Name("shop".into()));
    let message = scene.condition(ConditionType::TracesFlowing).message;
    assert!(message.contains("arrive in experiment shop (shared by 2 workloads);"), "{message}");
    assert!(!message.contains("rag"), "{message}");
}

// review A6: beyond a few, names are only in the rows.
#[test]
fn many_experiments_are_counted() {
    let names: Vec<_> = (0..300).map(|n| format!("agent-{n:03}")).collect();
    let mut scene = Scene::of(names.iter().map(|name| workload(name, InjectionState::Current)));
    for name in &names {
        scene = scene.evidence(name, Evidence::Received(at(NOW)));
    }
    let message = scene.condition(ConditionType::TracesFlowing).message;
    assert!(message.contains("300 experiments (agent-000, agent-001, agent-002 and 297 more)"), "{message}");
}

// Section 3, point 3.
#[test]
fn what_waits_for_mlflow_is_told_with_its_count() {
    let wanting = || InjectionState::OutOfDate { hash: "x".into(), patch: Vec::new() };
    let mut scene = Scene::of([workload("teller", wanting()), workload("rag", wanting())]);
    scene.mlflow = ConditionUpdate::bad(Reason::Unreachable, "MLflow is down; look with: kubectl get pods");
    scene.answered = None;
    let condition = scene.condition(ConditionType::WorkloadsReady);
    assert_eq!(condition.reason, "WaitingForMLflow");
    assert!(condition.message.contains("waits until it does: 2 workloads (teller, rag)"), "{}", condition.message);
    assert_eq!(scene.ready(), is("False", "Unreachable"));
}

#[test]
fn nobody_is_called_silent_while_nobody_can_look() {
    let scene = Scene::of([workload("teller", InjectionState::Current)]).evidence("teller", Evidence::NotAsked);
    assert_eq!(scene.condition(ConditionType::TracesFlowing).reason, "NoTracesYet");
}

#[test]
fn traces_without_spans_lower_ready() {
    let scene = Scene::of([workload("teller", InjectionState::Current)]).evidence("teller", Evidence::WithoutSpans);
    assert_eq!(scene.ready(), is("False", "TracesWithoutSpans"));
}
