//! Who takes certificate authorities from ConfigMap `agenttracing-ca`. An optional volume whose ConfigMap is deleted is emptied
//! under the running container, and a missing file ends every call of Python's requests.

use serde::Deserialize;

use crate::core::inject::view::Workload;
use crate::core::selection::kind::Kind;
use crate::names;

/// Whether a workload's pods, or a pod that has not ended, mount the ConfigMap.
pub fn uses_config_map(kind: Kind, json: &str) -> Result<bool, serde_json::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Object {
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        phase: String,
    }
    let workload = Workload::parse(kind, json)?;
    let mut maps = workload.pod.volumes.iter().flatten().filter_map(|volume| volume.config_map.as_ref());
    if !maps.any(|map| &*map.name == names::CA_CONFIG_MAP) {
        return Ok(false);
    }
    // A Job that has ended starts no pod any more, and none of its pods runs: they speak for themselves.
    if kind == Kind::Job {
        return Ok(false);
    }
    let Object { status } = serde_json::from_str(json)?;
    Ok(kind != Kind::Pod || !["Succeeded", "Failed"].contains(&status.phase.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn uses(kind: Kind, map: &str, status: Value) -> bool {
        let pod = json!({"containers": [], "volumes": [{"name": "ca-bundle", "configMap": {"name": map}}]});
        let spec = match kind {
            Kind::Pod => pod,
            Kind::CronJob => json!({"jobTemplate": {"spec": {"template": {"spec": pod}}}}),
            _ => json!({"template": {"spec": pod}}),
        };
        uses_config_map(kind, &json!({"metadata": {}, "spec": spec, "status": status}).to_string()).unwrap()
    }

    /// Finding A3.
    #[test]
    fn the_file_is_in_use_while_a_template_names_it_or_a_pod_runs_with_it() {
        for kind in Kind::ALL {
            assert_eq!(uses(kind, "agenttracing-ca", json!({})), kind != Kind::Job, "{kind:?}");
            assert!(!uses(kind, "other", json!({})));
        }
        assert!(uses(Kind::Pod, "agenttracing-ca", json!({"phase": "Running"})));
        assert!(!uses(Kind::Pod, "agenttracing-ca", json!({"phase": "Succeeded"})));
    }
}
