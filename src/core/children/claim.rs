//! The claim of a standalone server. It holds the traces: it is never replaced silently, and what it cannot become is told.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::child::{Child, Owners, Wanted};
use super::drift::has_drifted;
use super::{metadata, needs_volume, of_tracing, owner, quantity};
use crate::api::{AgentTracing, DeletionPolicy, Reason};
use crate::core::kubectl::Kubectl;
use crate::core::settings::{Settings, StandaloneSettings};
use crate::core::status::condition::ChildObstacle;
use crate::names;

/// The claim; left as it is where database and artifacts are both elsewhere, since it may hold the traces of before.
pub fn claim(settings: &Settings, standalone: &StandaloneSettings) -> Child {
    if !needs_volume(standalone) {
        let unwanted = Child::unwanted::<PersistentVolumeClaim>(
            &settings.namespace,
            &settings.object_name(),
            of_tracing(settings),
        );
        return Child { wanted: Wanted::AsItIs, ..unwanted };
    }
    let claim = PersistentVolumeClaim {
        metadata: metadata(settings),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(standalone.storage_size.clone()))])),
                limits: None,
            }),
            storage_class_name: standalone.storage_class_name.clone(),
            ..Default::default()
        }),
        status: None,
    };
    let owners = match standalone.deletion_policy {
        // Traces are data: by default the claim belongs to nobody and outlives the AgentTracing.
        DeletionPolicy::Retain => Owners::Nobody,
        DeletionPolicy::Delete => Owners::Controller(owner(settings)),
    };
    Child { refused: Reason::StorageNotBound, ..Child::new(claim, &owners, of_tracing(settings)) }
}

/// Whether a claim that is absent has been there: MLflow answered once, and its Deployment (if that is there) mounts the
/// claim.
pub fn was_in_use(tracing: &AgentTracing, deployment: Option<&Value>, name: &str) -> bool {
    let mounts_it = |deployment: &Value| {
        let volumes = deployment.pointer("/spec/template/spec/volumes").and_then(Value::as_array);
        let claims =
            volumes.into_iter().flatten().filter_map(|v| v.pointer("/persistentVolumeClaim/claimName")?.as_str());
        claims.into_iter().any(|claim| claim == name)
    };
    let answered = tracing.status.as_ref().is_some_and(|s| s.mlflow.is_some());
    answered && deployment.is_none_or(mounts_it)
}

/// What is said of a claim that was in use and is gone.
pub fn is_lost(settings: &Settings) -> ChildObstacle {
    not_bound(format!(
        "PersistentVolumeClaim {} is gone and with it the traces; restore it, or start with an empty one by deleting \
         this AgentTracing and creating it again: {}",
        settings.object_name(),
        on_tracing("delete", settings)
    ))
}

/// What is said of a claim that is being deleted.
pub fn is_going(settings: &Settings) -> ChildObstacle {
    let Settings { namespace, name: tracing, .. } = settings;
    let its_pods = names::pods_of(names::MLFLOW, tracing);
    let pods = Kubectl::new("get pods").namespace(namespace).selector(&its_pods).args(["-o", "name"]);
    let copy = Kubectl::new("cp").namespace(namespace);
    not_bound(format!(
        "PersistentVolumeClaim {} is being deleted and its traces go as soon as MLflow's pod stops; copy them now: \
         {copy} $({pods} | head -n 1 | cut -d/ -f2):/mlflow ./mlflow",
        settings.object_name()
    ))
}

/// What is said of the changes that this claim cannot make.
pub fn refusals(settings: &Settings, desired: &Value, live: &Value) -> Vec<ChildObstacle> {
    let edit = on_tracing("edit", settings);
    let refused = refused_changes(desired, live);
    refused.iter().map(|refused| not_bound(format!("{refused}; change it with: {edit}"))).collect()
}

/// Whether the size that is desired is another one than the claim has.
pub fn is_resized(desired: &Value, live: &Value) -> bool {
    let size = |object: &Value| json!({"requests": {"storage": object.pointer(SIZE)}});
    live.pointer(SIZE).is_some() && has_drifted(&size(desired), &size(live))
}

/// The desired claim with the size that the live one has: another would be refused each time.
pub fn with_size_of(mut desired: Value, live: &Value) -> Value {
    if let (Some(size), Some(found)) = (desired.pointer_mut(SIZE), live.pointer(SIZE)) {
        *size = found.clone();
    }
    desired
}

/// What is said of a claim whose StorageClass does not let it grow.
pub fn cannot_grow(settings: &Settings, desired: &Value, live: &Value) -> ChildObstacle {
    let text = |object: &Value, path| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (asked, found, class) = (text(desired, SIZE), text(live, SIZE), text(live, CLASS));
    let has_owner = |object: &Value| {
        object.pointer("/metadata/ownerReferences").and_then(Value::as_array).is_some_and(|owners| !owners.is_empty())
    };
    let object = settings.object_name();
    let owners = Kubectl::new("get pvc").namespace(&settings.namespace).arg(&object);
    let owners = owners.jsonpath(".metadata.ownerReferences");
    // The size only grows: the way back is a new AgentTracing that adopts the volume, which goes with an owner that it has.
    let back = match (has_owner(desired), has_owner(live)) {
        (false, true) => format!(
            "or go back to {found} by a new AgentTracing, which adopts the volume, but do not delete this one before the volume \
             has no owner any more: wait until this prints nothing: {owners}"
        ),
        (false, false) => format!(
            "or go back to {found} by a new AgentTracing, which adopts the volume: {}",
            on_tracing("delete", settings)
        ),
        (true, _) => format!(
            "or go back to {found}: set deletionPolicy to Retain, wait until '{owners}' prints nothing, and only then delete this \
             AgentTracing and create it with {found}, which adopts the volume; begin with: {}",
            on_tracing("edit", settings)
        ),
    };
    let expand = Kubectl::new("patch storageclass").arg(&class).args(["-p", r#"{"allowVolumeExpansion":true}"#]);
    not_bound(format!(
        "The volume cannot grow from {found} to {asked}: StorageClass \"{class}\" does not allow it; allow it with '{expand}' if its \
         driver can, {back}"
    ))
}

/// Whether the claim has its volume, without which it cannot grow.
pub fn is_bound(live: &Value) -> bool {
    live.pointer("/status/phase").and_then(Value::as_str) == Some("Bound")
}

/// The name of its StorageClass, where it has one.
pub fn storage_class(live: &Value) -> Option<&str> {
    live.pointer(CLASS).and_then(Value::as_str).filter(|class| !class.is_empty())
}

/// A command about the AgentTracing.
fn on_tracing(verb: &str, settings: &Settings) -> Kubectl {
    Kubectl::new(verb).arg("agenttracing").namespace(&settings.namespace).arg(&settings.name)
}

fn not_bound(message: String) -> ChildObstacle {
    ChildObstacle { reason: Reason::StorageNotBound, message }
}

/// A change that the API server would refuse for ever. It is told, never tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedChange {
    /// The field of the AgentTracing's spec.
    pub field: &'static str,
    /// What the spec asks for.
    pub wanted: String,
    /// What the object has.
    pub live: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for RefusedChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, wanted, live, remedy } = self;
        write!(f, "{field} is \"{wanted}\", but the volume that exists has \"{live}\": {remedy}")
    }
}

const SIZE: &str = "/spec/resources/requests/storage";
const SIZE_FIELD: &str = "spec.mlflow.standalone.storage.size";
const CLASS: &str = "/spec/storageClassName";
const CLASS_FIELD: &str = "spec.mlflow.standalone.storage.storageClassName";

/// What a PersistentVolumeClaim that exists will not become: a smaller one, one of another class and, until it is bound,
/// one of any other size.
pub fn refused_changes(desired: &Value, live: &Value) -> Vec<RefusedChange> {
    let text = |object: &Value, path| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let phase = text(live, "/status/phase");
    let (namespace, name) = (text(live, "/metadata/namespace"), text(live, "/metadata/name"));
    let delete = Kubectl::new("delete pvc").namespace(&namespace).arg(&name);
    let unbound = format!("nothing is stored yet and an unbound claim cannot change; let it be made anew: {delete}");
    let is_bound = phase.is_empty() || phase == "Bound";
    let mut refused_changes = Vec::new();

    let (wanted, found) = (text(desired, SIZE), text(live, SIZE));
    let order = match (quantity::parse(&wanted), quantity::parse(&found)) {
        (Some(wanted), Some(found)) => wanted.cmp(&found),
        _ => Ordering::Equal,
    };
    if order == Ordering::Less || (order == Ordering::Greater && !is_bound) {
        let remedy = if is_bound {
            format!("a volume cannot shrink; set the field to {found} or more")
        } else {
            unbound.clone()
        };
        refused_changes.push(RefusedChange { field: SIZE_FIELD, wanted, live: found, remedy });
    }
    // A claim without a class yet gets the default class later; both may still be set once.
    let (wanted, found) = (text(desired, CLASS), text(live, CLASS));
    if !wanted.is_empty() && !found.is_empty() && wanted != found {
        let remedy = if is_bound {
            format!(
                "a class cannot change; set the field to {found}, or delete the volume with all its traces: {delete}"
            )
        } else {
            unbound
        };
        refused_changes.push(RefusedChange { field: CLASS_FIELD, wanted, live: found, remedy });
    }
    refused_changes
}

/// The desired claim with what is [`refused_changes`] left as it is, so that the rest of it, above all whether the AgentTracing
/// owns it, still follows the spec. This is what is compared with [`has_drifted`] and what is applied.
///
/// A class that the spec does not name (any more) is the live one: an apply that leaves out a class which an earlier one
/// had, as for an adopted claim, means to remove it, and is refused with 422.
pub fn without_refused(mut desired: Value, live: &Value) -> Value {
    let refused_changes = refused_changes(&desired, live);
    if let (Some(size), Some(found)) = (desired.pointer_mut(SIZE), live.pointer(SIZE))
        && refused_changes.iter().any(|r| r.field == SIZE_FIELD)
    {
        *size = found.clone();
    }
    if let (Some(spec), Some(found)) = (desired.get_mut("spec").and_then(Value::as_object_mut), live.pointer(CLASS)) {
        spec.insert("storageClassName".to_owned(), found.clone());
    }
    desired
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(size: &str, class: Option<&str>) -> Value {
        let mut claim = json!({
            "metadata": {"name": "tracing-mlflow", "namespace": "bank"},
            "spec": {"resources": {"requests": {"storage": size}}},
        });
        if let Some(class) = class {
            claim["spec"]["storageClassName"] = json!(class);
        }
        claim
    }

    #[test]
    fn a_claim_grows_but_neither_shrinks_nor_changes_its_class() {
        let live = claim("10Gi", Some("fast"));
        for size in ["10240Mi", "20Gi"] {
            for class in [None, Some("fast")] {
                assert_eq!(refused_changes(&claim(size, class), &live), []);
                assert_eq!(without_refused(claim(size, class), &live), claim(size, Some("fast")));
            }
        }
        let (wanted, classless) = (claim("10Gi", Some("fast")), claim("10Gi", None));
        assert_eq!(refused_changes(&wanted, &classless), [], "a claim without a class yet may get one");
        assert_eq!(without_refused(wanted.clone(), &classless), wanted);

        let impossible = claim("5Gi", Some("slow"));
        let told: Vec<String> = refused_changes(&impossible, &live).iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("5Gi") && told[0].contains("set the field to 10Gi"), "{}", told[0]);
        assert!(
            told[1].contains("slow") && told[1].ends_with("kubectl delete pvc -n bank tracing-mlflow"),
            "{}",
            told[1]
        );
        assert_eq!(without_refused(impossible, &live), live);
    }

    /// C5: a volume that still has an owner went with it, when the advice was typed faster than the operator took the owner out.
    #[test]
    fn the_way_back_from_a_size_never_deletes_a_volume_with_its_traces() {
        let yaml = "{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {name: tracing, namespace: bank}, spec: \
                    {mlflow: {mode: Standalone}}}";
        let settings = crate::core::settings::parse(&serde_yaml::from_str(yaml).unwrap()).unwrap();
        let claim = |size: &str, has_owner: bool| {
            let mut claim = claim(size, Some("fast"));
            if has_owner {
                claim["metadata"]["ownerReferences"] = json!([{"kind": "AgentTracing", "name": "tracing"}]);
            }
            claim
        };
        let advice = |wanted, live| cannot_grow(&settings, &claim("10Gi", wanted), &claim("5Gi", live)).message;
        let look = "kubectl get pvc -n bank tracing-mlflow -o jsonpath='{.metadata.ownerReferences}'";
        let delete = "kubectl delete agenttracing -n bank tracing";

        let retained = advice(false, false);
        assert!(retained.ends_with(&format!("which adopts the volume: {delete}")), "{retained}");
        let until_retained = advice(false, true);
        assert!(until_retained.ends_with(&format!("wait until this prints nothing: {look}")), "{until_retained}");
        for live in [true, false] {
            let deleted = advice(true, live);
            assert!(
                deleted.contains(&format!("set deletionPolicy to Retain, wait until '{look}' prints nothing")),
                "{deleted}"
            );
            assert!(deleted.ends_with("kubectl edit agenttracing -n bank tracing"), "{deleted}");
        }
    }

    #[test]
    fn a_claim_that_is_not_bound_is_made_anew_by_the_user() {
        let mut live = claim("5Ti", Some("misspelt"));
        live["status"] = json!({"phase": "Pending"});
        for size in ["5Gi", "6Ti"] {
            let told = refused_changes(&claim(size, Some("fast")), &live);
            assert_eq!(told.len(), 2);
            assert!(told.iter().all(|r| r.remedy.ends_with("made anew: kubectl delete pvc -n bank tracing-mlflow")));
        }
        live["status"]["phase"] = json!("Bound");
        assert_eq!(refused_changes(&claim("6Ti", None), &live), []);
    }
}
