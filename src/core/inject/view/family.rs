//! What a workload is called to people: the names of experiments, and the owners that Pods are listed by.

use super::{Owner, Workload};
use crate::core::selection::kind::Kind;
use crate::names;

impl Workload<'_> {
    /// The name that the experiment gets, one for each family: what a workload is called to people, not what one revision or one
    /// run of it is called.
    pub fn experiments_name(&self) -> &str {
        let family = match (self.kind, &self.metadata.owner) {
            (Kind::Pod, Some(owner)) => Some(self.owners_name(owner)),
            (Kind::Job, owner) => self.generated_stem().or_else(|| self.family_of_job(owner.as_ref())),
            _ => None,
        };
        self.knative_service().or(family).unwrap_or_else(|| self.own_name())
    }

    /// Knative makes a Deployment for each revision of a service.
    fn knative_service(&self) -> Option<&str> {
        let label = |label| self.metadata.label(label).or_else(|| self.template_label(label));
        label(names::LABEL_KNATIVE_SERVICE).filter(|name| !name.is_empty())
    }

    /// Helm hooks, Dagster and others give each Job a name that there is only once.
    fn family_of_job<'w>(&'w self, owner: Option<&'w Owner<'_>>) -> Option<&'w str> {
        let label = self.metadata.label(names::LABEL_NAME).or_else(|| self.template_label(names::LABEL_NAME));
        label.filter(|name| !name.is_empty()).or_else(|| owner.map(|owner| &*owner.name))
    }

    /// What people call a Pod's owner: a ReplicaSet by the name of what made it, a scheduled Job by its CronJob's.
    fn owners_name<'w>(&'w self, owner: &'w Owner<'_>) -> &'w str {
        if owner.is("batch", "Job") {
            return self.family_of_job(None).unwrap_or_else(|| unscheduled(&owner.name));
        }
        let hashes = names::POD_TEMPLATE_HASHES.into_iter().filter_map(|label| self.metadata.label(label));
        hashes.into_iter().find_map(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-')).unwrap_or(&owner.name)
    }

    /// The same before and after the API server has made a name: the wiring is from before, the controller looks after.
    fn own_name(&self) -> &str {
        self.generated_stem().unwrap_or_else(|| self.name())
    }

    /// `generateName` without its dash, where the name comes from it.
    fn generated_stem(&self) -> Option<&str> {
        let (name, stem) = (self.name(), self.metadata.generate_name.as_deref()?);
        (name.is_empty() || is_generated(name, stem)).then(|| stem.strip_suffix('-').unwrap_or(stem))
    }

    /// What a Pod is listed as: its owner by kind and name, as people know it, or the Pod itself. `None` where the owner is a
    /// workload that is listed by itself.
    pub fn pod_group(&self) -> Option<(String, String)> {
        let Some(owner) = &self.metadata.owner else {
            return Some((Kind::Pod.as_str().to_owned(), self.name().to_owned()));
        };
        let [deployments, rollouts] = names::POD_TEMPLATE_HASHES;
        let hashed = |label| self.metadata.label(label).is_some_and(|hash| owner.name.ends_with(hash));
        let replica_set = owner.is("apps", "ReplicaSet");
        let listed = owner.is("apps", "StatefulSet") || owner.is("apps", "DaemonSet") || owner.is("batch", "Job");
        if listed || (replica_set && hashed(deployments)) {
            return None;
        }
        let name = self.owners_name(owner).to_owned();
        if replica_set && hashed(rollouts) {
            return Some(("Rollout".to_owned(), name));
        }
        // Another group's kind of the same name must not look like ours.
        let ours = Kind::ALL.iter().any(|kind| kind.as_str() == &*owner.kind);
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        Some((if ours { format!("{}.{group}", &*owner.kind) } else { owner.kind.to_string() }, name))
    }
}

/// Whether the API server made a name: of the stem, cut where the name would be too long, and five characters.
fn is_generated(name: &str, stem: &str) -> bool {
    let stem = stem.get(..58).unwrap_or(stem);
    !stem.is_empty() && name.strip_prefix(stem).is_some_and(|made| made.len() == 5)
}

/// A scheduled Job is called after its CronJob and the minute of its schedule since 1970. CronJobs with such names are
/// younger than 2020; a date like 20240501 at the end of a name is the user's own.
fn unscheduled(job: &str) -> &str {
    const OLDEST: u64 = 26_297_280;
    match job.rsplit_once('-') {
        Some((name, minute)) if minute.len() == 8 && minute.parse().is_ok_and(|minute: u64| minute >= OLDEST) => name,
        _ => job,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn name_of(kind: Kind, metadata: Value) -> String {
        let template = json!({"spec": {"containers": []}});
        let spec = match kind {
            Kind::Pod => json!({"containers": []}),
            Kind::CronJob => json!({"jobTemplate": {"metadata": {"name": "no"}, "spec": {"template": template}}}),
            _ => json!({"template": template}),
        };
        let object = json!({"metadata": metadata, "spec": spec}).to_string();
        Workload::parse(kind, &object).unwrap().experiments_name().to_owned()
    }

    #[test]
    fn a_workload_has_its_own_name_or_the_generated_ones_stem() {
        for kind in Kind::ALL {
            assert_eq!(name_of(kind, json!({"name": "teller"})), "teller");
            assert_eq!(name_of(kind, json!({"generateName": "import-"})), "import");
            assert_eq!(name_of(kind, json!({"name": "import-x7f2k", "generateName": "import-"})), "import");
            assert_eq!(name_of(kind, json!({"name": "import-x7", "generateName": "import-"})), "import-x7");
            assert_eq!(name_of(kind, json!({"name": "export-x7f2k", "generateName": "import-"})), "export-x7f2k");
            let long = format!("{}-", "i".repeat(70));
            let cut = format!("{}x7f2k", "i".repeat(58));
            assert_eq!(name_of(kind, json!({"name": cut, "generateName": long})), "i".repeat(70));
        }
    }

    #[test]
    fn an_owned_pod_has_its_owners_name_without_the_hash() {
        let pod = |owner: &str, name: &str, labels: Value| {
            let (api_version, kind) = owner.rsplit_once('/').unwrap();
            let owner = json!({"apiVersion": api_version, "kind": kind, "name": name, "controller": true});
            let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "other"});
            name_of(Kind::Pod, json!({"name": "x-1", "labels": labels, "ownerReferences": [other, owner]}))
        };
        let hash = |label: &str| json!({label: "6b7f9c"});
        for (owner, name, labels, expected) in [
            ("apps/v1/ReplicaSet", "teller-6b7f9c", hash("pod-template-hash"), "teller"),
            ("apps/v1/ReplicaSet", "teller-6b7f9c", hash("rollouts-pod-template-hash"), "teller"),
            ("apps/v1/ReplicaSet", "teller-other", hash("pod-template-hash"), "teller-other"),
            ("apps/v1/ReplicaSet", "by-hand", json!({}), "by-hand"),
            ("apps/v1/StatefulSet", "vault", json!({}), "vault"),
            ("batch/v1/Job", "import", json!({}), "import"),
            ("batch/v1/Job", "nightly-29384756", json!({}), "nightly"),
            ("batch/v1/Job", "import-20240501", json!({}), "import-20240501"),
            ("batch/v1/Job", "import-123", json!({}), "import-123"),
            ("agents.x-k8s.io/v1alpha1/Sandbox", "desk", json!({}), "desk"),
        ] {
            assert_eq!(pod(owner, name, labels), expected, "{owner}");
        }
    }

    #[test]
    fn one_family_has_one_experiment() {
        // case B42
        let knative = json!({"serving.knative.dev/service": "teller", "serving.knative.dev/revision": "teller-00002"});
        assert_eq!(name_of(Kind::Deployment, json!({"name": "teller-00002-deployment", "labels": knative})), "teller");
        // case B41
        let owner = json!([{"apiVersion": "dagster.io/v1", "kind": "Run", "name": "bank-import", "controller": true}]);
        let labels = json!({"app.kubernetes.io/name": "crew"});
        let job = |metadata: Value| name_of(Kind::Job, metadata);
        assert_eq!(job(json!({"name": "crew-migrate-42", "labels": labels})), "crew");
        assert_eq!(job(json!({"name": "run-7d3b0c0e", "ownerReferences": owner})), "bank-import");
        assert_eq!(job(json!({"name": "run-7d3b0c0e", "labels": labels, "ownerReferences": owner})), "crew");
        assert_eq!(
            job(json!({"generateName": "import-", "labels": labels})),
            "import",
            "it tells the family by itself"
        );
        assert_eq!(job(json!({"name": "run-7d3b0c0e"})), "run-7d3b0c0e", "nothing tells");
        assert_eq!(
            name_of(Kind::Deployment, json!({"name": "vault", "labels": labels})),
            "vault",
            "it is there for long"
        );
    }

    #[test]
    fn a_pod_is_listed_by_its_owner_unless_that_is_listed_itself() {
        let group = |owner: Value, labels: Value| {
            let metadata = json!({"name": "x-1", "labels": labels, "ownerReferences": [owner]});
            let pod = json!({"metadata": metadata, "spec": {"containers": []}}).to_string();
            let group = Workload::parse(Kind::Pod, &pod).unwrap().pod_group();
            group.map(|(kind, name)| format!("{kind}/{name}"))
        };
        let owner = |api_version: &str, kind: &str, name: &str| json!({"apiVersion": api_version, "kind": kind, "name": name, "controller": true});
        let replica_set = owner("apps/v1", "ReplicaSet", "teller-6b7f9c");
        for (owner, labels, expected) in [
            (replica_set.clone(), json!({"pod-template-hash": "6b7f9c"}), None),
            (replica_set.clone(), json!({"rollouts-pod-template-hash": "6b7f9c"}), Some("Rollout/teller")),
            (replica_set, json!({}), Some("ReplicaSet/teller-6b7f9c")),
            (owner("apps/v1", "StatefulSet", "vault"), json!({}), None),
            (owner("batch/v1", "Job", "import"), json!({}), None),
            (owner("batch.volcano.sh/v1alpha1", "Job", "import"), json!({}), Some("Job.batch.volcano.sh/import")),
            (owner("agents.x-k8s.io/v1alpha1", "Sandbox", "desk"), json!({}), Some("Sandbox/desk")),
        ] {
            assert_eq!(group(owner, labels).as_deref(), expected);
        }
    }
}
