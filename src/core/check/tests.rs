use serde_json::{Value, json};

use super::*;

pub(super) fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn tracing() -> Value {
    json!({
        "apiVersion": "agenttracing.dev/v1alpha1", "kind": "AgentTracing",
        "metadata": {"name": "tracing", "namespace": "bank-agents", "generation": 3},
        "spec": {"mlflow": {"mode": "CR"}},
        "status": {
            "observedGeneration": 3,
            "workloads": [{"kind": "Deployment", "name": "teller", "state": "Injected", "experiment": "teller",
                "lastTraceTime": "2026-11-21T11:59:00Z"}],
            "conditions": [
                condition("Ready", "True", "TracesReceived"),
                condition("MLflowReady", "True", "Available"),
                condition("WorkspaceReady", "True", "Visible"),
                condition("RBACReady", "True", "Bound"),
                condition("InjectionReady", "True", "Enabled"),
                condition("ExperimentsReady", "True", "Ensured"),
                condition("WorkloadsReady", "True", "AllCurrent"),
                condition("TracesFlowing", "True", "TracesReceived"),
            ],
        },
    })
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": format!("so it is; type: kubectl get {reason}"),
        "lastTransitionTime": "2026-11-21T11:00:00Z"})
}

/// An authority that is valid for a hundred years, as the operator makes them.
fn authority() -> Vec<u8> {
    crate::core::ca_bundle::system_roots().into_bytes()
}

/// All is well.
pub(super) fn facts() -> Facts {
    Facts {
        namespace: "bank-agents".into(),
        workload: None,
        definition: Fact::Known(true),
        operator: Fact::Known(Some(OperatorFacts { namespace: "agent-tracing-system".into(), ready: 2 })),
        leader: Fact::Known(Some("2026-11-21T12:00:10Z".parse().unwrap())),
        webhook: Fact::Known(Some(WebhookFacts { bundles: vec![authority(), authority()] })),
        labels: Fact::Known(Some(BTreeMap::from([(names::LABEL_INJECTION.to_owned(), names::ENABLED.to_owned())]))),
        tracings: Fact::Known(vec![serde_json::from_value(tracing()).unwrap()]),
        probe: Fact::Known(Some(true)),
        pods: Fact::Known(BTreeMap::from([(
            "deployment/teller".to_owned(),
            PodFacts { running: 2, current: 2, tokenless: None },
        )])),
        authorities: super::authorities::tests::sound(),
    }
}

/// The facts with an AgentTracing that was changed.
fn with(change: impl FnOnce(&mut Value)) -> Facts {
    let mut changed = tracing();
    change(&mut changed);
    Facts { tracings: Fact::Known(vec![serde_json::from_value(changed).unwrap()]), ..facts() }
}

fn with_condition(kind: &str, status: &str, reason: &str) -> Facts {
    with(|tracing| {
        let all = tracing["status"]["conditions"].as_array_mut().unwrap();
        let place = all.iter().position(|c| c["type"] == kind).unwrap();
        all[place] = condition(kind, status, reason);
    })
}

fn with_pods(pods: PodFacts) -> Facts {
    Facts { pods: Fact::Known(BTreeMap::from([("deployment/teller".to_owned(), pods)])), ..facts() }
}

fn with_row(row: Value) -> Facts {
    with(|tracing| tracing["status"]["workloads"] = json!([row]))
}

#[test]
fn where_all_is_well_every_link_holds() {
    let links = check(&facts(), now());
    assert!(links.iter().all(|link| link.state == State::Good), "{links:#?}");
    assert_eq!(links.first().map(|link| link.link.as_str()), Some("definition"));
    assert_eq!(links.last().map(|link| link.link.as_str()), Some("traces"));
    assert_eq!(exit_code(&links), 0);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table: one line for each link")]
fn of_everything_that_can_be_broken_the_one_cause_is_named() {
    let row = |state: &str, reason: &str| json!({"kind": "Deployment", "name": "teller", "state": state, "reason": reason, "message": "why; type: kubectl describe x"});
    let table: Vec<(&str, Facts, &str)> = vec![
        (
            "definition",
            Facts { definition: Fact::Known(false), ..facts() },
            "helm upgrade --install agent-tracing-operator charts/agent-tracing-operator -n agent-tracing-system \
             --create-namespace, or: kubectl apply -k config/default",
        ),
        ("namespace", Facts { labels: Fact::Known(None), ..facts() }, "kubectl get namespaces"),
        ("AgentTracing", Facts { tracings: Fact::Known(Vec::new()), ..facts() }, "config/samples/standalone.yaml"),
        ("operator", Facts { operator: Fact::Known(None), ..facts() }, "kubectl apply -k config/default"),
        (
            "operator",
            Facts { operator: Fact::Known(Some(OperatorFacts { namespace: "tools".into(), ready: 0 })), ..facts() },
            "kubectl describe pods -n tools -l app.kubernetes.io/name=agent-tracing-operator",
        ),
        (
            "leader",
            Facts { leader: Fact::Known(None), ..facts() },
            "kubectl logs -n agent-tracing-system -l app.kubernetes.io/name=agent-tracing-operator --tail=-1",
        ),
        (
            "leader",
            Facts { leader: Fact::Known(Some("2026-11-21T11:59:00Z".parse().unwrap())), ..facts() },
            "kubectl logs",
        ),
        ("webhook", Facts { webhook: Fact::Known(None), ..facts() }, "kubectl apply -k config/default"),
        (
            "webhook",
            Facts { webhook: Fact::Known(Some(WebhookFacts { bundles: vec![authority(), Vec::new()] })), ..facts() },
            "kubectl get mutatingwebhookconfiguration agent-tracing-webhook -o yaml",
        ),
        (
            "webhook",
            Facts { webhook: Fact::Known(Some(WebhookFacts { bundles: vec![b"garbage".to_vec()] })), ..facts() },
            "holds no certificate that is valid now",
        ),
        (
            "namespace label",
            Facts { labels: Fact::Known(Some(BTreeMap::new())), ..facts() },
            "kubectl label namespace bank-agents",
        ),
        // System namespaces are never wired, whatever their labels say.
        (
            "namespace label",
            Facts {
                namespace: "redhat-ods-applications".into(),
                labels: Fact::Known(Some(BTreeMap::new())),
                ..facts()
            },
            "run agents in another one: kubectl create namespace agents",
        ),
        (
            "namespace label",
            Facts { namespace: "agent-tracing-system".into(), ..facts() },
            "in which nothing is ever wired",
        ),
        ("namespace label", with_condition("InjectionReady", "False", "NamespaceExcluded"), "NamespaceExcluded"),
        (
            "namespace label",
            Facts {
                labels: Fact::Known(Some(BTreeMap::from([(names::LABEL_INJECTION.into(), "true".into())]))),
                ..facts()
            },
            "is \"true\"",
        ),
        ("webhook answers", Facts { probe: Fact::Known(Some(false)), ..facts() }, "kubectl get endpointslices"),
        ("spec", with(|tracing| tracing["metadata"]["generation"] = json!(4)), "kubectl logs"),
        ("spec", with(|tracing| tracing["status"] = Value::Null), "kubectl logs"),
        ("spec allows it", with_condition("Ready", "False", "Suspended"), "kubectl get Suspended"),
        ("spec allows it", with_condition("Ready", "False", "InvalidSpec"), "kubectl get InvalidSpec"),
        ("spec allows it", with_condition("Ready", "False", "Conflict"), "kubectl get Conflict"),
        ("MLflowReady", with_condition("MLflowReady", "False", "Unreachable"), "Unreachable: "),
        ("MLflowReady", with_condition("MLflowReady", "False", "HostHeaderRejected"), "HostHeaderRejected: "),
        ("WorkspaceReady", with_condition("WorkspaceReady", "False", "NamespaceLabelMissing"), "kubectl get"),
        ("RBACReady", with_condition("RBACReady", "False", "ClusterRoleMissing"), "kubectl get"),
        ("InjectionReady", with_condition("InjectionReady", "False", "NothingMatches"), "kubectl get"),
        ("ExperimentsReady", with_condition("ExperimentsReady", "False", "ExperimentDeleted"), "kubectl get"),
        ("deployment/teller", with_row(row("Halted", "CrashLoopBackOff")), "Halted CrashLoopBackOff: why"),
        ("deployment/teller", with_row(row("Skipped", "NoServiceAccountToken")), "kubectl describe x"),
        ("deployment/teller", with_row(row("Outdated", "")), "Outdated"),
        (
            "deployment/teller",
            with_pods(PodFacts { running: 2, current: 1, tokenless: None }),
            "kubectl rollout restart -n bank-agents deployment/teller",
        ),
        (
            "deployment/teller",
            with_pods(PodFacts { running: 2, current: 2, tokenless: Some(("teller-1".into(), "agent".into())) }),
            "kubectl get pod -n bank-agents teller-1 -o yaml",
        ),
        (
            "CA bundle of deployment/teller",
            Facts { authorities: super::authorities::tests::missing_certificates(), ..facts() },
            "kubectl rollout restart -n bank-agents deployment/teller",
        ),
        (
            "statefulset/x",
            Facts { workload: Some("statefulset/x".into()), ..facts() },
            "kubectl get -n bank-agents statefulset/x",
        ),
        ("traces", with_condition("TracesFlowing", "False", "TracesWithoutSpans"), "TracesWithoutSpans: "),
        ("traces", with_condition("TracesFlowing", "False", "OTLPPathMissing"), "OTLPPathMissing: "),
    ];
    assert!(table.len() >= 25);
    for (link, facts, remedy) in table {
        let links = check(&facts, now());
        let bad: Vec<_> = links.iter().filter(|link| link.state == State::Bad).collect();
        assert_eq!(bad.len(), 1, "{link}: {links:#?}");
        assert_eq!(bad[0].link, link);
        assert!(bad[0].message.contains(remedy), "{link}: {}", bad[0].message);
        assert_eq!(exit_code(&links), 1);
        let place = links.iter().position(|link| link.state == State::Bad).unwrap();
        let behind = links[place + 1..].iter().filter(|link| link.state == State::Good);
        assert_eq!(behind.count(), 0, "what lies behind the cause is not looked at: {links:#?}");
    }
}

#[test]
fn what_may_not_be_looked_at_is_neither_good_nor_bad() {
    let facts = Facts { operator: Fact::Unknown("you may not list deployments".into()), ..facts() };
    let links = check(&facts, now());
    let link = links.iter().find(|link| link.link == "operator").unwrap();
    let said = "it cannot be looked at (you may not list deployments); see whether you may: kubectl auth can-i list deployments -A";
    assert_eq!((link.state, link.message.as_str()), (State::Unknown, said));
    assert_eq!(exit_code(&links), 2);
    let quiet = with_condition("TracesFlowing", "False", "NoTracesYet");
    assert_eq!(exit_code(&check(&quiet, now())), 2, "nobody asked the agents yet");
}

/// Section 3, point 7.
#[test]
fn a_workload_of_whose_traces_none_was_seen_is_unknown_beside_others_that_send() {
    let rows = json!([
        {"kind": "Deployment", "name": "teller", "state": "Injected", "experiment": "teller",
            "lastTraceTime": "2026-11-21T11:59:00Z"},
        {"kind": "Deployment", "name": "rag", "state": "Injected", "experiment": "rag"},
        {"kind": "Deployment", "name": "quiet", "state": "Injected", "experiment": "quiet",
            "lastTraceTime": "2026-11-21T10:00:00Z", "notes": ["TracesStopped: the last one began long ago"]},
    ]);
    let facts = with(|tracing| tracing["status"]["workloads"] = rows);
    let links = check(&facts, now());
    let found = |links: &[Link], link: &str| links.iter().find(|l| l.link == link).cloned().unwrap();
    assert_eq!(found(&links, "deployment/teller").state, State::Good);
    assert_eq!(found(&links, "deployment/rag").state, State::Unknown);
    assert_eq!(exit_code(&links), 2);
    for (only, state, code) in [("teller", State::Good, 0), ("rag", State::Unknown, 2), ("quiet", State::Bad, 1)] {
        let links = check(&Facts { workload: Some(format!("deployment/{only}")), ..facts.clone() }, now());
        let traces = found(&links, "traces");
        assert_eq!((traces.state, exit_code(&links)), (state, code), "{links:#?}");
        assert!(
            state == State::Good || traces.message.ends_with(&format!("kubectl logs -n bank-agents deployment/{only}"))
        );
    }
}

/// Section 3, point 7.
#[test]
fn whatever_cannot_be_looked_at_says_what_to_type() {
    let why = || "refused".to_owned();
    let unknown = Facts {
        definition: Fact::Unknown(why()),
        operator: Fact::Unknown(why()),
        leader: Fact::Unknown(why()),
        webhook: Fact::Unknown(why()),
        labels: Fact::Unknown(why()),
        tracings: facts().tracings,
        probe: Fact::Known(None),
        pods: Fact::Unknown(why()),
        ..facts()
    };
    let links = check(&unknown, now());
    let unknown: Vec<_> = links.iter().filter(|link| link.state == State::Unknown).collect();
    assert!(unknown.len() >= 8, "{links:#?}");
    for link in unknown {
        assert!(link.message.contains(": kubectl "), "{link:?}");
    }
}

#[test]
fn what_its_owner_chose_is_no_fault() {
    let chosen =
        json!({"kind": "Deployment", "name": "teller", "state": "Skipped", "reason": "OptedOut", "message": "x"});
    assert_eq!(exit_code(&check(&with_row(chosen), now())), 0);
}

/// Review 3.2(5): status does not count it, and `Ready` is `True`.
#[test]
fn what_an_older_agent_tracing_has_is_no_fault() {
    let of_another =
        json!({"kind": "Deployment", "name": "teller", "state": "Skipped", "reason": "Conflict", "message": "x"});
    let links = check(&with_row(of_another), now());
    let link = links.iter().find(|link| link.link == "deployment/teller").unwrap();
    assert_eq!(link.message, "Skipped Conflict: an older AgentTracing of this namespace has it");
    assert_eq!(exit_code(&links), 0);
}

#[test]
fn one_broken_agent_tracing_says_nothing_about_the_next() {
    let mut other = tracing();
    other["metadata"]["name"] = json!("other");
    other["status"]["conditions"][1] = condition("MLflowReady", "False", "Unreachable");
    let tracings = [other, tracing()].map(|tracing| serde_json::from_value(tracing).unwrap()).to_vec();
    let links = check(&Facts { tracings: Fact::Known(tracings), ..facts() }, now());
    let state = |link: &str| links.iter().find(|l| l.link == link).unwrap().state;
    assert_eq!((state("other: MLflowReady"), state("other: traces")), (State::Bad, State::Skipped));
    assert_eq!((state("tracing: MLflowReady"), state("tracing: traces")), (State::Good, State::Good));
}
