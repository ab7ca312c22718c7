//! Why a workload is not wired, and what would wire it.

use serde_json::json;

use crate::api::Reason;
use crate::core::kubectl::Kubectl;
use crate::core::selection::kind::Kind;
use crate::core::workloads::Assessment;
use crate::names;

pub(super) fn why(namespace: &str, assessment: &Assessment, reason: Reason) -> String {
    let resource = assessment.resource();
    let on_it = |what: &str| Kubectl::new(what).namespace(namespace).arg(&resource);
    let of_template = |field: &str| on_it("get").jsonpath(&format!(".{}{field}", assessment.kind.template().join(".")));
    let is_pod = assessment.kind == Kind::Pod;
    match reason {
        Reason::OptedOut => format!(
            "It is labelled {0}=false; to wire it: {1}",
            names::LABEL_INJECT,
            on_it("label").arg(&format!("{}-", names::LABEL_INJECT))
        ),
        Reason::OwnTrackingURI => format!(
            "Its containers set MLFLOW_TRACKING_URI themselves, which is kept; to wire it: {}",
            on_it("set env").arg("MLFLOW_TRACKING_URI-")
        ),
        Reason::NoContainers => format!(
            "None of its containers is chosen; see injection.containers and the annotation {}: {}",
            names::ANNOTATION_CONTAINERS,
            of_template(".spec.containers[*].name")
        ),
        Reason::AnnotationsTooLong => format!(
            "Its template's annotations leave no room for the record of what is injected (262,144 bytes in all); move the longest \
             into a ConfigMap: {}",
            of_template(".metadata.annotations")
        ),
        Reason::NoServiceAccountToken if is_pod => format!(
            "Its pods get no service account token, without which MLflow refuses them; set automountServiceAccountToken to true in what \
             makes them, seen here: {}",
            on_it("get").yaml()
        ),
        Reason::NoServiceAccountToken => {
            let setting = json!({"spec": {"automountServiceAccountToken": true}});
            let path = assessment.kind.template().iter().rev();
            format!(
                "Its pods get no service account token, without which MLflow refuses them; let them have it: {}",
                on_it("patch").merge(&path.fold(setting, |inner, field| json!({ *field: inner })))
            )
        }
        Reason::Windows => {
            format!("Windows pods are not wired; see its node selector: {}", on_it("get").yaml())
        }
        Reason::CreatedUnwired if is_pod => format!(
            "Pods of it were created before they could be wired, and a Pod is never changed; delete them, so that what made them makes \
             them again: {}",
            on_it("delete")
        ),
        Reason::CreatedUnwired => format!(
            "It was created before it could be wired, and a Job is never changed; create it again: {}",
            on_it("get").yaml()
        ),
        _ => format!(
            "The record of what was injected cannot be read; remove our variables and the record by hand: {} (annotation {})",
            on_it("edit"),
            names::ANNOTATION_RECORD
        ),
    }
}
