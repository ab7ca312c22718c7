//! Which containers have a service account token for the API server, which is what MLflow takes.

use super::{Container, ProjectedSource, Volume, Workload};
use crate::names;

impl Workload<'_> {
    /// Whether any container has a token, where `automounts` says what the account does by itself.
    pub fn has_token(&self, automounts: bool) -> bool {
        let containers = self.pod.containers.iter().chain(self.pod.init_containers.iter().flatten());
        containers.into_iter().any(|container| self.gives_token(container, automounts))
    }

    /// Whether this container has one. What the user mounts at the token's folder takes its place; an empty volume there is a
    /// known way to keep the token from a container.
    pub fn gives_token(&self, container: &Container<'_>, automounts: bool) -> bool {
        let mounted = |folder: bool| {
            container.volume_mounts.iter().flatten().find(|mount| {
                let path = mount.mount_path.trim_end_matches('/');
                path.strip_prefix(names::TOKEN_FOLDER).is_some_and(|rest| rest == if folder { "" } else { "/token" })
            })
        };
        match mounted(true) {
            _ if mounted(false).is_some() => true,
            Some(mount) => {
                let volume = self.pod.volumes.iter().flatten().find(|volume| *volume.name == *mount.name);
                volume.is_none_or(may_hold_token)
            }
            None => self.pod.automount_service_account_token.unwrap_or(automounts),
        }
    }
}

/// What cannot be seen into may hold a token.
fn may_hold_token(volume: &Volume<'_>) -> bool {
    match &volume.projected {
        Some(projected) => projected.sources.iter().any(is_token),
        None => {
            let never = volume.empty_dir.is_some() || volume.config_map.is_some() || volume.downward_api.is_some();
            !never && volume.image.is_none() && volume.persistent_volume_claim.is_none()
        }
    }
}

/// A token for somebody else, say Vault, is refused by MLflow.
fn is_token(source: &ProjectedSource<'_>) -> bool {
    let for_the_api_server = |audience: &str| audience.is_empty() || audience.starts_with("https://kubernetes.default");
    let token = source.service_account_token.as_ref();
    let token =
        token.is_some_and(|t| &*t.path == "token" && for_the_api_server(t.audience.as_deref().unwrap_or_default()));
    token || source.secret.is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::selection::kind::Kind;

    fn has(automount: Option<bool>, volume: Value, path: &str) -> bool {
        let mut volume = volume;
        volume["name"] = json!("v");
        let pod = json!({
            "automountServiceAccountToken": automount,
            "containers": [
                {"name": "agent", "volumeMounts": [{"name": "v", "mountPath": path}]},
                {"name": "helper"},
            ],
            "volumes": [volume],
        });
        let text = json!({"metadata": {}, "spec": {"template": {"spec": pod}}}).to_string();
        let workload = Workload::parse(Kind::Deployment, &text).unwrap();
        let [agent, helper] = &workload.pod.containers[..] else { panic!() };
        assert_eq!(workload.gives_token(helper, true), automount.unwrap_or(true), "the mount is the agent's alone");
        workload.gives_token(agent, true)
    }

    /// cases B14, B15
    #[test]
    fn a_token_is_looked_for_in_the_container_under_its_name_and_for_its_audience() {
        let projected =
            |source: Value| json!({"projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}, source]}});
        let token = |path: &str, audience: Value| {
            projected(json!({"serviceAccountToken": {"path": path, "audience": audience}}))
        };
        let folder = names::TOKEN_FOLDER;
        for volume in [
            token("token", json!(null)),
            token("token", json!("https://kubernetes.default.svc")),
            projected(json!({"secret": {"name": "teller-token"}})),
            json!({"secret": {"secretName": "teller-token"}}),
            json!({"csi": {"driver": "secrets-store.csi.k8s.io"}}),
            json!({"hostPath": {"path": "/x"}}),
        ] {
            for automount in [None, Some(false), Some(true)] {
                assert!(has(automount, volume.clone(), folder), "{volume}");
            }
            assert!(!has(Some(false), volume.clone(), "/var/run/secrets/vault"), "{volume}");
        }
        for volume in [
            token("jwt", json!(null)),
            token("token", json!("vault")),
            projected(json!({})),
            json!({"emptyDir": {}}),
            json!({"configMap": {"name": "x"}}),
            json!({"persistentVolumeClaim": {"claimName": "x"}}),
        ] {
            for automount in [None, Some(false), Some(true)] {
                assert!(!has(automount, volume.clone(), &format!("{folder}/")), "{volume}");
            }
            assert!(has(None, volume.clone(), "/data"), "{volume}");
            assert!(has(Some(false), volume.clone(), &format!("{folder}/token")), "{volume}");
        }
    }
}
