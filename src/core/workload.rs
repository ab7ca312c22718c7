//! A live Deployment judged: whose it is, what it lacks, how far its pods are, and where its traces go.

use jiff::Timestamp;
use json_patch::PatchOperation;
use serde::Deserialize;

use super::decide::{Decision, Leave, decide};
use super::inject::{Note, existing_record, uninject};
use super::kind::Kind;
use super::record::RecordError;
use super::select::{NotSelected, Selection, Surroundings, select};
use super::view::{Container, Workload};
use super::wiring::{EXPERIMENT_GROUP, Missing, TRACKING_URI};
use crate::api::Reason;
use crate::names;

/// A Deployment and what one AgentTracing has to do with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Resource version; guards a patch that was computed from this state.
    pub resource_version: String,
    /// It has a controlling owner that would undo a patch of its template: it is touched, never patched.
    pub owned: bool,
    /// `spec.paused`: it would not roll.
    pub paused: bool,
    /// Whether its template carries a record of ours.
    pub wired: bool,
    /// What is the case.
    pub standing: Standing,
    /// How far its pods follow its template.
    pub rollout: Rollout,
    /// Where its traces go.
    pub experiment: Target,
    /// What the user should know.
    pub notes: Vec<String>,
    /// The touch annotation.
    pub touch: Option<String>,
    /// The record annotation, which its pods carry too.
    pub record: Option<String>,
    /// Label selector of its pods.
    pub pods: String,
    /// The service account of its pods.
    pub account: String,
}

/// What is the case with a Deployment.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// The template is as wanted.
    Current,
    /// The template should be changed.
    Wanting {
        /// Hash of the wanted wiring.
        hash: String,
        /// The change.
        patch: Vec<PatchOperation>,
    },
    /// It will be wired when this is known.
    Waiting(Missing),
    /// A newer operator wired it.
    Newer,
    /// It is not wired.
    Skipped {
        /// Why.
        reason: Reason,
        /// The user wants it so, or it cannot be otherwise: nothing is wrong and it is not counted.
        deliberate: bool,
        /// What takes out an earlier wiring.
        leftover: Vec<PatchOperation>,
    },
    /// It carries the wiring of this AgentTracing, which no longer applies to it. This takes it out.
    Stray(Vec<PatchOperation>),
    /// It matches, but an older AgentTracing has it.
    Elsewhere,
}

/// How far a Deployment's pods follow its template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    /// All pods are of the current template.
    pub complete: bool,
    /// When its pods became available, if they are.
    pub available_since: Option<Timestamp>,
    /// What the Deployment says about a rollout that does not go on.
    pub stuck: Option<String>,
}

/// Where the traces of a workload go.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The experiment of this name.
    Name(String),
    /// The experiment with this numeric id.
    Id(String),
    /// It cannot be seen: the value comes from elsewhere.
    #[default]
    Unknown,
}

impl Target {
    /// As it stands in status.
    pub fn display(&self) -> Option<String> {
        match self {
            Self::Name(name) => Some(name.clone()),
            Self::Id(id) => Some(format!("id {id}")),
            Self::Unknown => None,
        }
    }
}

/// The service account of a Deployment that an AgentTracing of mode CR has or would have.
pub fn account_to_bind(json: &str, around: &Surroundings<'_>) -> Result<Option<String>, serde_json::Error> {
    let workload = Workload::parse(Kind::Deployment, json)?;
    let Selection::One(policy) = select(&workload, around) else { return Ok(None) };
    let account = workload.service_account();
    let wanted = policy.bound.is_some() && workload.has_token(!around.tokenless.contains(account));
    Ok(wanted.then(|| account.to_owned()))
}

/// Judges a Deployment for one AgentTracing; `None` where it is none of its concern.
pub fn judge(json: &str, tracing: &str, around: &Surroundings<'_>) -> Result<Option<Judged>, serde_json::Error> {
    let workload = Workload::parse(Kind::Deployment, json)?;
    let live: Live = serde_json::from_str(json)?;
    let Some((standing, notes, experiment)) = stand(&workload, tracing, around) else { return Ok(None) };
    let template = workload.template_metadata();
    Ok(Some(Judged {
        name: workload.name().to_owned(),
        uid: live.metadata.uid,
        resource_version: live.metadata.resource_version,
        owned: live.metadata.owner_references.iter().any(|o| o.controller),
        paused: live.spec.paused,
        wired: existing_record(&workload).is_ok_and(|r| r.is_some()),
        standing,
        rollout: rollout(live.metadata.generation, &live.status),
        experiment,
        notes: notes.iter().take(16).map(|n| n.to_string().chars().take(256).collect()).collect(),
        touch: workload.metadata.annotation(names::ANNOTATION_TOUCH).map(str::to_owned),
        record: template.and_then(|m| m.annotation(names::ANNOTATION_RECORD)).map(str::to_owned),
        pods: live.spec.selector.as_query(),
        account: workload.service_account().to_owned(),
    }))
}

fn stand(workload: &Workload<'_>, tracing: &str, around: &Surroundings<'_>) -> Option<(Standing, Vec<Note>, Target)> {
    let plain = |standing| Some((standing, Vec::new(), Target::Unknown));
    let skipped = |reason, deliberate| plain(Standing::Skipped { reason, deliberate, leftover: Vec::new() });
    match decide(workload, around) {
        Decision::Wire { tracing: by, experiment, injection } if by == tracing => {
            let target = target(workload, &injection.notes, experiment);
            let standing = match injection.skipped {
                Some(reason) => Standing::Skipped {
                    reason,
                    deliberate: reason == Reason::OwnTrackingURI,
                    leftover: injection.patch,
                },
                None if injection.patch.is_empty() => Standing::Current,
                None => Standing::Wanting { hash: injection.hash, patch: injection.patch },
            };
            Some((standing, injection.notes, target))
        }
        Decision::Leave(Leave::Waiting { tracing: by, missing }) if by == tracing => {
            Some((Standing::Waiting(missing), Vec::new(), planned(workload, tracing, around)))
        }
        Decision::Leave(Leave::Record { tracing: by, error }) if by == tracing => match error {
            RecordError::Newer(_) => Some((Standing::Newer, Vec::new(), planned(workload, tracing, around))),
            RecordError::Unreadable(_) => skipped(Reason::RecordUnreadable, false),
        },
        Decision::Leave(Leave::Record { tracing: by, .. })
            if by.is_empty() && reports_unselected(workload, tracing, around) =>
        {
            skipped(Reason::RecordUnreadable, false)
        }
        Decision::Leave(Leave::Suspended { .. }) => None,
        Decision::Unwire(leftover) if reports_unselected(workload, tracing, around) => {
            plain(Standing::Skipped { reason: Reason::OptedOut, deliberate: true, leftover })
        }
        Decision::Leave(Leave::NotSelected(why)) => match why {
            NotSelected::OptedOut if reports_unselected(workload, tracing, around) => skipped(Reason::OptedOut, true),
            NotSelected::Windows if reports_unselected(workload, tracing, around) => skipped(Reason::Windows, true),
            NotSelected::NamespaceNotLabelled | NotSelected::NoMatch
                if workload.metadata.label(names::LABEL_WIRED) == Some(tracing) =>
            {
                match uninject(workload) {
                    Ok(patch) if !patch.is_empty() => plain(Standing::Stray(patch)),
                    _ => None,
                }
            }
            _ => None,
        },
        // It belongs to another AgentTracing; say so if this one wants it too.
        _ => {
            let own: Vec<_> = around.policies.iter().filter(|p| p.name == tracing).cloned().collect();
            let alone = Surroundings { policies: &own, ..*around };
            matches!(select(workload, &alone), Selection::One(_)).then_some(())?;
            plain(Standing::Elsewhere)
        }
    }
}

/// The experiment of a workload that cannot be wired yet: as if every fact were known, so that no experiment is made which
/// the user's own choice leaves empty.
fn planned(workload: &Workload<'_>, tracing: &str, around: &Surroundings<'_>) -> Target {
    let mut policies: Vec<_> = around.policies.iter().filter(|p| p.name == tracing).cloned().collect();
    for policy in &mut policies {
        policy.tracking_uri.get_or_insert_default();
        policy.experiment.pin = false;
        policy.bound = None;
    }
    match decide(workload, &Surroundings { policies: &policies, ..*around }) {
        Decision::Wire { experiment, injection, .. } => target(workload, &injection.notes, experiment),
        _ => Target::Unknown,
    }
}

/// What no AgentTracing selects is reported by the oldest that would select it otherwise.
fn reports_unselected(workload: &Workload<'_>, tracing: &str, around: &Surroundings<'_>) -> bool {
    let willing = around.policies.iter().filter(|p| p.selects(workload));
    let oldest = willing.min_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    oldest.is_some_and(|p| p.name == tracing)
}

/// The experiment that the first wired container logs to. `MLFLOW_TRACING_DESTINATION` wins over a name, a name over an id.
fn target(workload: &Workload<'_>, notes: &[Note], experiment: String) -> Target {
    let kept = |container: &Container<'_>| {
        notes.iter().find_map(|note| match note {
            Note::KeptByUser { container: name, variables } if **name == *container.name => Some(variables),
            _ => None,
        })
    };
    let record = existing_record(workload).ok().flatten();
    let wired = |container: &&Container<'_>| match &record {
        Some(record) => record.containers.contains_key(&*container.name),
        None => !kept(container).is_some_and(|variables| variables.iter().any(|v| v == TRACKING_URI)),
    };
    let Some(container) = workload.pod.containers.iter().find(wired) else {
        return Target::Name(experiment);
    };
    let own = |variable: &str| {
        kept(container).filter(|variables| variables.iter().any(|v| v == variable))?;
        container.env.iter().flatten().rev().find(|e| &*e.name == variable)
    };
    let [name, id, destination] = EXPERIMENT_GROUP;
    let literal = |entry: &super::view::EnvEntry<'_>| {
        let value = entry.value.as_deref().unwrap_or_default();
        let plain = entry.value_from.is_none() && !value.is_empty() && !value.contains("$(");
        plain.then(|| value.to_owned())
    };
    let numeric = |value: String| match value.bytes().all(|b| b.is_ascii_digit()) {
        true => Target::Id(value),
        false => Target::Unknown,
    };
    if let Some(entry) = own(destination) {
        literal(entry).map_or(Target::Unknown, numeric)
    } else if let Some(entry) = own(name) {
        literal(entry).map_or(Target::Unknown, Target::Name)
    } else if let Some(entry) = own(id) {
        literal(entry).map_or(Target::Unknown, numeric)
    } else {
        Target::Name(experiment)
    }
}

/// Judged by what the deployment controller says, so that a pod that restarts later is no rollout.
fn rollout(generation: i64, status: &LiveStatus) -> Rollout {
    let condition = |kind: &str| status.conditions.iter().find(|c| c.kind == kind);
    let progressing = condition("Progressing");
    let seen = status.observed_generation >= generation;
    let done = match progressing {
        Some(progressing) => progressing.reason == "NewReplicaSetAvailable",
        // Not reported without a progress deadline.
        None => status.available_replicas >= status.updated_replicas,
    };
    let complete = seen && done && status.replicas == status.updated_replicas;
    let available = condition("Available").filter(|c| c.status == "True").and_then(|c| c.last_transition_time);
    let rolled = progressing.and_then(|c| c.last_update_time);
    let failing =
        [condition("ReplicaFailure").filter(|c| c.status == "True"), progressing.filter(|c| c.status == "False")];
    Rollout {
        complete,
        available_since: available
            .filter(|_| complete && status.available_replicas > 0)
            .map(|a| rolled.map_or(a, |r| r.max(a))),
        stuck: failing.into_iter().flatten().find(|_| seen).map(|c| c.message.chars().take(300).collect()),
    }
}

#[derive(Deserialize)]
struct Live {
    metadata: LiveMetadata,
    spec: LiveSpec,
    #[serde(default)]
    status: LiveStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LiveMetadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    owner_references: Vec<LiveOwner>,
}

#[derive(Deserialize)]
struct LiveOwner {
    #[serde(default)]
    controller: bool,
}

#[derive(Deserialize)]
struct LiveSpec {
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    selector: LiveSelector,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LiveSelector {
    match_labels: std::collections::BTreeMap<String, String>,
}

impl LiveSelector {
    /// Expressions are left out: the record annotation tells a Deployment's pods from others' anyway.
    fn as_query(&self) -> String {
        self.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LiveStatus {
    observed_generation: i64,
    replicas: i64,
    updated_replicas: i64,
    available_replicas: i64,
    conditions: Vec<LiveCondition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LiveCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    last_update_time: Option<Timestamp>,
    last_transition_time: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use std::collections::BTreeSet;

    use super::*;
    use crate::api::AgentTracing;
    use crate::core::policy::Policy;
    use crate::core::settings::Platform;

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

    fn deployment(env: Value) -> Value {
        json!({
            "metadata": {"name": "teller", "uid": "u-1", "resourceVersion": "7", "generation": 2},
            "spec": {
                "selector": {"matchLabels": {"app": "teller"}},
                "template": {"metadata": {"labels": {"app": "teller"}}, "spec": {"containers": [{"name": "agent", "env": env}]}},
            },
        })
    }

    fn judged(deployment: &Value, policies: &[Policy], labelled: bool) -> Option<Judged> {
        let around = Surroundings {
            namespace: "bank-agents",
            injection_enabled: labelled,
            platform: &Platform::default(),
            tokenless: &BTreeSet::new(),
            policies,
        };
        judge(&deployment.to_string(), "tracing", &around).unwrap()
    }

    fn wired(mut deployment: Value) -> Value {
        let Standing::Wanting { patch, .. } = judged(&deployment, &[policy(true)], true).unwrap().standing else {
            panic!("already wired")
        };
        json_patch::patch(&mut deployment, &patch).unwrap();
        deployment
    }

    #[test]
    fn a_deployment_waits_until_mlflow_answered_then_wants_wiring_then_is_current() {
        let plain = deployment(json!([]));
        let waiting = Standing::Waiting(Missing::TrackingUri);
        assert_eq!(judged(&plain, &[policy(false)], true).unwrap().standing, waiting);
        let current = judged(&wired(plain), &[policy(true)], true).unwrap();
        assert_eq!(current.standing, Standing::Current);
        assert_eq!(current.experiment, Target::Name("teller".into()));
        assert!(current.wired && current.record.is_some());
    }

    #[test]
    fn a_wired_deployment_of_an_unlabelled_namespace_is_a_stray() {
        let stray = judged(&wired(deployment(json!([]))), &[policy(true)], false).unwrap();
        assert!(matches!(stray.standing, Standing::Stray(patch) if !patch.is_empty()));
        assert_eq!(judged(&deployment(json!([])), &[policy(true)], false), None);
    }

    #[test]
    fn an_opted_out_deployment_is_reported_and_not_counted() {
        let mut out = deployment(json!([]));
        out["metadata"]["labels"] = json!({"agenttracing.dev/inject": "false"});
        let standing = judged(&out, &[policy(true)], true).unwrap().standing;
        assert!(matches!(standing, Standing::Skipped { reason: Reason::OptedOut, deliberate: true, .. }));
    }

    #[test]
    fn the_users_own_experiment_is_where_traces_go() {
        let own = |name: &str, value: Value| {
            let mut entry = json!({"name": name});
            entry.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
            judged(&deployment(json!([entry])), &[policy(true)], true).unwrap().experiment
        };
        assert_eq!(own("MLFLOW_EXPERIMENT_NAME", json!({"value": "vault"})), Target::Name("vault".into()));
        assert_eq!(own("MLFLOW_EXPERIMENT_ID", json!({"value": "12"})), Target::Id("12".into()));
        assert_eq!(own("MLFLOW_EXPERIMENT_NAME", json!({"value": "$(APP)"})), Target::Unknown);
        assert_eq!(own("MLFLOW_EXPERIMENT_NAME", json!({"valueFrom": {}})), Target::Unknown);
    }

    #[test]
    fn the_younger_of_two_agent_tracings_sees_the_workload_elsewhere() {
        let older = Policy { name: "elder".into(), created: -1, ..policy(true) };
        let standing = judged(&deployment(json!([])), &[policy(true), older], true).unwrap().standing;
        assert_eq!(standing, Standing::Elsewhere);
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
            rollout(2, &serde_json::from_value(json).unwrap())
        };
        assert!(!status(1, "NewReplicaSetAvailable").complete);
        assert!(!status(2, "ReplicaSetUpdated").complete);
        let done = status(2, "NewReplicaSetAvailable");
        assert!(done.complete);
        assert_eq!(done.available_since, Some("2026-11-21T10:00:09Z".parse().unwrap()));
    }
}
