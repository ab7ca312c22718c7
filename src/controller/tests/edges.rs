//! The edges of selection and status: what is no longer selected, what is refused, what comes and goes.

use super::*;

const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/mlflow-operator-mlflow-integration";
const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/bank-agents/rolebindings/agenttracing-mlflow";
const AUTHORITIES: &str = "/api/v1/namespaces/bank-agents/configmaps/agenttracing-ca";

/// A Pod that something else than a workload of ours made, wired as it was created.
fn pod_of_rollout(world: &World, name: &str) -> String {
    let path = format!("/api/v1/namespaces/bank-agents/pods/{name}");
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rag-6b7f9c", "uid": "uid-rs", "controller": true});
    let labels = json!({"agenttracing.dev/inject": "true", "rollouts-pod-template-hash": "6b7f9c"});
    world.api.put(&path, json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "bank-agents", "creationTimestamp": "2026-11-21T10:00:00Z",
            "labels": labels, "ownerReferences": [owner]},
        "spec": {"serviceAccountName": "rag", "containers": [{"name": "agent", "image": "i"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T10:00:05Z"}]},
    }));
    path
}

/// review A1
#[tokio::test]
async fn a_kind_that_is_taken_out_of_the_list_is_given_back_to_the_last_byte() {
    let mut world = World::new().await;
    let before = world.api.get(TELLER).unwrap();
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    world.pass().await;
    assert_ne!(world.api.get(TELLER).unwrap()["spec"], before["spec"]);
    world.api.edit(TRACING, json!({"spec": {"injection": {"kinds": ["StatefulSet"]}}, "metadata": {"generation": 2}}));
    world.pass().await;
    world.pass().await;
    let after = world.api.get(TELLER).unwrap();
    assert_eq!((&after["spec"], &after["metadata"]["labels"]), (&before["spec"], &before["metadata"]["labels"]));
    assert!(world.api.events().contains(&"Removed teller".to_owned()), "{:?}", world.api.events());
    world.api.take_writes();
    world.pass().await;
    assert_eq!(world.api.take_writes(), Vec::<String>::new(), "at rest");
}

/// review A13
#[tokio::test]
async fn manual_takes_nothing_out_of_running_pods_before_their_own_next_change() {
    let mut world = World::at_rest().await;
    let wired = world.api.get(TELLER).unwrap()["spec"].clone();
    let narrowed = json!({"spec": {"injection": {"kinds": ["StatefulSet"], "rollout": {"policy": "Manual"}}}, "metadata": {"generation": 2}});
    world.api.edit(TRACING, narrowed);
    world.pass().await;
    world.pass().await;
    assert_eq!(world.api.get(TELLER).unwrap()["spec"], wired);
    let row = world.status()["workloads"][0].clone();
    assert_eq!(row["state"], "Outdated");
    assert!(
        row["message"].as_str().unwrap().ends_with("kubectl rollout restart -n bank-agents deployment/teller"),
        "{row}"
    );

    // Its owner rolls it.
    world.api.edit(TELLER, json!({"status": {"updatedReplicas": 0}}));
    world.pass().await;
    assert_ne!(world.api.get(TELLER).unwrap()["spec"], wired);
}

/// review A5
#[tokio::test]
async fn from_something_to_nothing_everything_is_cleared_and_then_nothing_is_written() {
    let mut world = World::at_rest().await;
    assert!(world.status()["workloadStates"].is_array());
    world.api.delete(TELLER);
    world.pass().await;
    for field in ["workloads", "workloadStates"] {
        assert!(world.status()[field].is_null(), "{field}: {}", world.status());
    }
    world.api.take_writes();
    world.pass().await;
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
}

/// review A8
#[tokio::test]
async fn authorities_that_are_refused_or_somebody_elses_are_told_and_wire_nobody() {
    let spec = json!({"spec": {"caBundle": {"mode": "Always", "strategy": "ConfigMap"}}});
    let mut world = World::new().await;
    world.api.edit(TRACING, spec);
    world.api.refuse(AUTHORITIES, 403, "configmaps is forbidden: exceeded quota: tight");
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    world.pass().await;
    let (status, reason, message) = world.condition("InjectionReady");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "CreateForbidden"), "{message}");
    assert!(message.ends_with("kubectl describe resourcequota -n bank-agents"), "{message}");
    assert_eq!(world.reason("Ready"), "CreateForbidden");
    assert_eq!(world.api.writes_to(TELLER), 0, "its file would not be there");

    world.api.refuse(AUTHORITIES, 403, "");
    world.api.put(AUTHORITIES, json!({"metadata": {"name": "agenttracing-ca"}, "data": {"combined-ca.crt": "theirs"}}));
    world.pass().await;
    assert_eq!(world.reason("InjectionReady"), "NameConflict");
    assert_eq!(world.api.get(AUTHORITIES).unwrap()["data"]["combined-ca.crt"], "theirs");

    world.api.delete(AUTHORITIES);
    world.pass().await;
    world.pass().await;
    assert!(world.api.writes_to(TELLER) > 0);
    assert_eq!(world.reason("InjectionReady"), "Enabled");
}

/// review A8
#[tokio::test]
async fn passes_that_fail_again_and_again_are_told_in_the_status_and_forgotten_once_one_succeeds() {
    let mut world = World::new().await;
    world.api.refuse(SERVICE, 500, "etcd is full");
    for pass in 1..=3 {
        let tracing: AgentTracing = serde_json::from_value(world.api.get(TRACING).unwrap()).unwrap();
        let steps = StepTimer::begin(&world.ctx.options.metrics);
        let error = reconcile::reconcile(&tracing, &world.ctx, &steps).await.unwrap_err();
        reconcile::write_failure(&tracing, &world.ctx, &error).await;
        reconcile::failed_again(&world.ctx, tracing.metadata.uid.as_deref().unwrap());
        assert_eq!(world.status().is_null(), pass < 3, "one alone mends itself");
    }
    let (status, reason, message) = world.condition("Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ReconcileFailed"));
    assert!(message.contains("etcd is full"), "{message}");
    world.api.refuse(SERVICE, 500, "");
    world.pass().await;
    assert_ne!(world.reason("Ready"), "ReconcileFailed");
}

/// review A2
#[tokio::test]
async fn labelled_pods_are_counted_listed_by_their_owner_and_get_their_experiment() {
    let mut world = World::new().await;
    world.api.delete(TELLER);
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    let pods = ["rag-6b7f9c-a", "rag-6b7f9c-b"].map(|name| pod_of_rollout(&world, name));
    pods.iter().for_each(|path| world.api.wire_as_created(path));
    world.api.take_writes();
    for _ in 0..3 {
        world.pass().await;
    }
    let status = world.status();
    assert_eq!(status["injected"], "1/1");
    let row = &status["workloads"][0];
    assert_eq!((&row["kind"], &row["name"], &row["state"]), (&json!("Rollout"), &json!("rag"), &json!("Injected")));
    assert_eq!(row["experiment"], "rag");
    assert!(status["experiments"].to_string().contains("\"rag\""), "{status}");
    assert_eq!(world.reason("InjectionReady"), "Enabled");
    assert_eq!(world.reason("TracesFlowing"), "NoTracesFrom", "they are looked for");
    assert!(pods.iter().all(|path| world.api.writes_to(path) == 0), "a Pod is never changed");

    // One that was there before MLflow's address was known.
    pod_of_rollout(&world, "rag-6b7f9c-c");
    world.pass().await;
    let row = world.status()["workloads"][0].clone();
    assert_eq!((&row["state"], &row["reason"]), (&json!("Skipped"), &json!("CreatedUnwired")));
}

/// review A2
#[tokio::test]
async fn the_account_of_a_labelled_pod_is_bound_as_soon_as_it_is_seen() {
    let mut world = World::new().await;
    world.api.edit(TRACING, json!({"spec": {"mlflow": {"mode": "CR", "standalone": null}}}));
    world.api.put(ROLE, json!({"metadata": {"name": "mlflow-operator-mlflow-integration"}}));
    let status =
        json!({"url": "https://mlflow.example.com", "version": "3.14.0", "workspaces": true, "source": "Default"});
    world.api.edit(TRACING, json!({"status": {"mlflow": status}}));
    let path = pod_of_rollout(&world, "rag-6b7f9c-a");
    world.api.wire_as_created(&path);
    world.pass().await;
    let subjects = world.api.get(BINDING).unwrap()["subjects"].to_string();
    assert!(subjects.contains("\"rag\""), "{subjects}");
    let row = |world: &World| {
        let rows = world.status()["workloads"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["kind"] == "Rollout").unwrap()
    };
    assert!(row(&world)["notes"].to_string().contains("BoundLate: service account rag"), "{}", row(&world));
    assert!(world.status()["serviceAccounts"].to_string().contains("rag"));
    world.pass().await;
    assert!(!row(&world)["notes"].to_string().contains("BoundLate"), "{}", row(&world));
}

/// review A10
#[tokio::test]
async fn what_is_undone_in_the_same_request_is_contested_and_the_webhook_is_not_blamed() {
    let mut world = World::new().await;
    world.api.undo_in_the_same_request();
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    world.api.take_writes();
    for _ in 0..8 {
        world.pass().await;
        assert_ne!(world.reason("InjectionReady"), "WebhookUnavailable");
    }
    assert_eq!(world.status()["workloads"][0]["state"], "Contested");
    let first = world.api.writes_to(TELLER);
    assert!((1..=4).contains(&first), "{first} touches");
    world.pass().await;
    assert_eq!(world.api.writes_to(TELLER), first, "it is let have its way");
}

/// While the operator is replaced, its new leader and an old webhook want different things: that is no fight.
#[tokio::test]
async fn a_webhook_that_wires_otherwise_is_waited_for_and_nobody_is_blamed() {
    let mut world = World::new().await;
    let old = crate::core::settings::MergeCa { image: "r.example/absent:1".into(), ..Default::default() };
    world.api.edit(TRACING, json!({"spec": {"caBundle": {"mode": "Always"}}}));
    world.api.edit(TELLER, json!({"metadata": {"annotations": {(names::ANNOTATION_MERGE_CA_FAILED): old.source()}}}));
    world.api.webhooks_merge_ca(Some(&old.image));
    world.pass().await;
    world.mlflow_answers().await;
    for _ in 0..8 {
        world.pass().await;
        assert_ne!(world.reason("InjectionReady"), "WebhookUnavailable");
        assert_ne!(world.status()["workloads"][0]["state"], "Contested");
    }
    world.api.webhooks_merge_ca(None);
    // A touch has to differ from the last one, by the second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.pass().await;
    let template = world.api.get(TELLER).unwrap()["spec"]["template"].clone();
    assert_eq!(template["spec"]["initContainers"][0]["name"], "merge-ca", "{template}");
}

/// Its earlier wiring, which a silent webhook leaves as it is, was taken for that of a webhook with other options.
#[tokio::test]
async fn a_changed_spec_comes_to_what_is_wired_while_the_webhook_is_away() {
    let mut world = World::at_rest().await;
    world.api.webhook(false);
    world.api.edit(TRACING, json!({"spec": {"sdk": {"timeoutSeconds": 9}}, "metadata": {"generation": 2}}));
    world.pass().await;
    world.pass().await;
    let template = world.api.get(TELLER).unwrap()["spec"]["template"].clone();
    let env = template["spec"]["containers"][0]["env"].as_array().unwrap();
    assert!(env.iter().any(|e| e["name"] == "MLFLOW_HTTP_REQUEST_TIMEOUT" && e["value"] == "9"), "{template}");
    assert_eq!(world.reason("InjectionReady"), "WebhookUnavailable");
}

/// review A11
#[tokio::test]
async fn a_changed_spec_is_no_repair_and_a_stripped_template_is() {
    let mut world = World::at_rest().await;
    let count = |world: &World, event: &str| world.api.events().iter().filter(|e| *e == event).count();
    let of_tracing = count(&world, "Injected tracing");
    assert_eq!((count(&world, "Injected teller"), of_tracing), (1, 1), "on the workload and on the AgentTracing");
    world.api.edit(TRACING, json!({"spec": {"sdk": {"timeoutSeconds": 9}}, "metadata": {"generation": 2}}));
    world.pass().await;
    world.pass().await;
    assert_eq!((count(&world, "Injected teller"), count(&world, "Repaired teller")), (2, 0));

    strip(&world);
    world.pass().await;
    world.pass().await;
    assert_eq!((count(&world, "Injected teller"), count(&world, "Repaired teller")), (2, 1));
}

/// review A9
#[tokio::test]
async fn finished_jobs_stay_as_evidence_the_newest_twenty_of_a_day() {
    let mut world = World::new().await;
    world.api.delete(TELLER);
    world.pass().await;
    world.mlflow_answers().await;
    world.pass().await;
    let ago = |minutes: i64| (Timestamp::now() - jiff::SignedDuration::from_mins(minutes)).to_string();
    let job = |world: &World, number: usize, minutes: i64| {
        let path = format!("/apis/batch/v1/namespaces/bank-agents/jobs/import-{number:02}");
        world.api.put(&path, json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": format!("import-{number:02}"), "namespace": "bank-agents", "creationTimestamp": ago(minutes + 1),
                "labels": {"app.kubernetes.io/name": "import"}},
            "spec": {"template": {"metadata": {}, "spec": {"containers": [{"name": "agent", "image": "i"}]}}},
        }));
        world.api.wire_as_created(&path);
        let done = json!({"type": "Complete", "status": "True", "lastTransitionTime": ago(minutes)});
        world.api.edit(&path, json!({"status": {"conditions": [done]}}));
    };
    (0..30).for_each(|number| job(&world, number, 10 + number as i64));
    job(&world, 99, 25 * 60);
    for _ in 0..3 {
        world.pass().await;
    }
    let status = world.status();
    let rows = status["workloads"].as_array().unwrap();
    assert_eq!((rows.len(), &status["injected"]), (20, &json!("0/0")), "{status}");
    assert!(rows.iter().all(|row| row["name"] != "import-99" && row["experiment"] == "import"), "{rows:?}");
    assert!(rows[0]["notes"].to_string().contains("NoTraces"), "{}", rows[0]);
    assert_eq!((world.reason("TracesFlowing").as_str(), world.condition("Ready").0.as_str()), ("NoTracesFrom", "True"));
}

/// The first question of a new leader took longer than its pass waits, and the status said in between that nothing answers.
#[tokio::test]
async fn a_new_leader_says_what_the_one_before_said_until_it_knows_better() {
    let slow = ResponseTemplate::new(200).set_body_string("3.10.1").set_delay(Duration::from_secs(10));
    for (answer, patience) in [(slow, Duration::ZERO), (ResponseTemplate::new(503), UNTIL_IT_COMES)] {
        let mut world = World::at_rest().await;
        world.mlflow.reset().await;
        Mock::given(path("/version")).respond_with(answer).mount(&world.mlflow).await;
        world.restart(patience);
        world.pass().await;
        assert_eq!(world.condition("MLflowReady").0, "True");
        assert_eq!(world.api.writes_to(TELLER), 0);
        assert_eq!(world.api.events().iter().filter(|event| event.contains("MLflowReady")).count(), 1);
    }
}

/// What happened to a workload is said where its owner looks, and where whoever looks after the AgentTracing does.
#[tokio::test]
async fn what_is_repaired_removed_or_left_out_is_said_on_the_workload_and_on_the_agent_tracing() {
    let said = |world: &World, reason: &str| {
        let all = world.api.events();
        ["teller", "tracing"].map(|name| all.iter().filter(|event| **event == format!("{reason} {name}")).count())
    };
    let mut world = World::at_rest().await;
    strip(&world);
    world.pass().await;
    world.pass().await;
    assert_eq!(said(&world, names::event::REPAIRED), [1, 1]);
    assert_eq!(said(&world, names::event::REMOVED), [0, 0]);

    world.api.edit(TELLER, json!({"metadata": {"labels": {"agenttracing.dev/inject": "false"}}}));
    world.pass().await;
    world.pass().await;
    assert_eq!(said(&world, names::event::REMOVED), [1, 1]);
    assert_eq!(said(&world, names::event::INJECTION_SKIPPED), [1, 1]);
}

/// What fails in a namespace that is being deleted is nobody's trouble: not the objects, nor the pass.
#[tokio::test]
async fn a_namespace_that_is_going_is_no_warning() {
    let warnings = |answer: &'static str| async move {
        let mut world = World::new().await;
        let log = Log::default();
        let _guard = tracing::subscriber::set_default(log.subscriber());
        world.api.refuse(CLAIM, 403, answer);
        world.pass().await;
        world.api.refuse(&format!("{TRACING}/status"), 403, answer);
        world.api.edit(NAMESPACE, json!({"metadata": {"labels": null}}));
        let tracing: Guarded = serde_json::from_value(world.api.get(TRACING).unwrap()).unwrap();
        let steps = StepTimer::begin(&world.ctx.options.metrics);
        let failed = reconcile::reconcile(tracing.0.as_ref().unwrap(), &world.ctx, &steps).await.unwrap_err();
        let ctx = Context::new(world.ctx.options.clone(), false, reflector::store().0, UNTIL_IT_COMES);
        after_failure(Arc::new(tracing), &failed, Arc::new(ctx));
        log.text()
    };
    let said = warnings("persistentvolumeclaims is forbidden: exceeded quota: tight").await;
    assert!(said.contains("WARN") && said.contains("refused") && said.contains("failed to reconcile"), "{said}");
    let going = "is forbidden: unable to create new content in namespace bank-agents because it is being terminated";
    assert_eq!(warnings(going).await, "");
}

/// What is logged in this thread, from warnings on.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    fn subscriber(&self) -> impl tracing::Subscriber + use<> {
        let log = self.clone();
        tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(move || log.clone()).finish()
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
