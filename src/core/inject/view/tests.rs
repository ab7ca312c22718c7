//! Owners and places of templates.

use serde_json::{Value, json};

use super::*;

#[test]
fn a_job_belongs_to_a_cron_job_of_kubernetes_only() {
    let job = |owner: Value| {
        let object = json!({"metadata": {"ownerReferences": [owner]}, "spec": {"template": {"spec": {}}}});
        Workload::parse(Kind::Job, &object.to_string()).unwrap().is_of_cron_job()
    };
    assert!(job(json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "controller": true})));
    assert!(job(json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly"})), "kubectl create job");
    assert!(!job(json!({"apiVersion": "volcano.sh/v1", "kind": "CronJob", "name": "x", "controller": true})));
    assert!(!job(json!({"apiVersion": "kueue.x-k8s.io/v1", "kind": "Workload", "name": "x", "controller": true})));
}

#[test]
fn a_template_at_another_kinds_place_is_an_error() {
    let deployment = json!({"metadata": {}, "spec": {"template": {"spec": {"containers": []}}}}).to_string();
    assert!(Workload::parse(Kind::Deployment, &deployment).is_ok());
    assert!(Workload::parse(Kind::CronJob, &deployment).is_err());
    assert!(Workload::parse(Kind::Deployment, "null").is_err());
}
