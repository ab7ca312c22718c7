//! The server's Deployment: one pod, one volume, an init container that brings the database to the image's schema.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvFromSource, EnvVar, EnvVarSource, HTTPGetAction,
    LocalObjectReference, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecretEnvSource, SecretKeySelector, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::network::PORT_NAME;
use super::{labels, metadata, needs_volume, non_empty, selector_labels};
use crate::api::ImagePullPolicy;
use crate::core::settings::{Platform, Settings, StandaloneSettings};
use crate::core::wiring::literal;

/// The Deployment.
pub fn deployment(settings: &Settings, standalone: &StandaloneSettings, platform: &Platform) -> Deployment {
    Deployment {
        metadata: metadata(settings),
        spec: DeploymentSpec {
            replicas: Some(1),
            // Two servers on one SQLite file, or on one ReadWriteOnce volume, never.
            strategy: Some(DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None }),
            revision_history_limit: Some(3),
            selector: LabelSelector { match_labels: Some(selector_labels(settings)), match_expressions: None },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(pod_labels(settings, standalone)), ..Default::default() }),
                spec: Some(pod(settings, standalone, platform)),
            },
            ..Default::default()
        },
        status: None,
    }
}

/// The user's labels and then ours, which win: the selector must keep matching.
fn pod_labels(settings: &Settings, standalone: &StandaloneSettings) -> BTreeMap<String, String> {
    let user = standalone.pod_labels.clone();
    user.into_iter().chain(labels(settings)).collect()
}

fn pod(settings: &Settings, standalone: &StandaloneSettings, platform: &Platform) -> PodSpec {
    let pull_secrets: Vec<LocalObjectReference> =
        standalone.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
    PodSpec {
        init_containers: Some(vec![migrate(standalone)]),
        containers: vec![server(settings, standalone, platform)],
        volumes: Some(vec![
            data_volume(settings, standalone),
            // Uploads of artifacts pass through it.
            empty_dir(TMP, "1Gi"),
        ]),
        image_pull_secrets: non_empty(&pull_secrets),
        node_selector: non_empty(&standalone.node_selector),
        tolerations: non_empty(&standalone.tolerations),
        security_context: Some(pod_security(platform)),
        automount_service_account_token: Some(false),
        // A Service called `mlflow` would put MLFLOW_PORT=tcp://… into the server's environment.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(30),
        ..Default::default()
    }
}

fn migrate(standalone: &StandaloneSettings) -> Container {
    let mut env = vec![
        variable("AGENT_TRACING_IMAGE", &literal(&standalone.image)),
        variable("AGENT_TRACING_DATABASE", DATABASE),
    ];
    if let Some(artifacts) = &standalone.artifacts {
        env.push(variable("AGENT_TRACING_ARTIFACTS", &literal(&artifacts.destination)));
    }
    Container {
        name: "migrate".to_owned(),
        command: Some(["python3", "-c", &literal(MIGRATE)].map(str::to_owned).to_vec()),
        // What the script has to say about a failure, and, where it dies without a word, the end of its log.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..container(standalone, env)
    }
}

fn server(settings: &Settings, standalone: &StandaloneSettings, platform: &Platform) -> Container {
    let artifacts = standalone.artifacts.as_ref();
    let mut args = vec![
        "server".to_owned(),
        // With `::` and one worker uvicorn listens on IPv6 alone.
        format!("--host={}", if platform.ipv6 { "::" } else { "0.0.0.0" }),
        // Explicit, since a Service called `mlflow` in the namespace sets MLFLOW_PORT.
        format!("--port={}", standalone.port),
        format!("--workers={}", standalone.workers),
    ];
    if standalone.backend_store_secret.is_none() {
        args.push(format!("--backend-store-uri=sqlite:///{DATABASE}"));
    }
    // Never --default-artifact-root with a path: the *client* would write to its own disk.
    args.push("--serve-artifacts".to_owned());
    let destination = artifacts.map_or(ARTIFACTS, |artifacts| &artifacts.destination);
    args.push(format!("--artifacts-destination={}", literal(destination)));

    let env = vec![
        variable("MLFLOW_SERVER_ALLOWED_HOSTS", &literal(&allowed_hosts(settings, standalone, platform).join(","))),
        // With the job runner a server is 13 processes and 2.5 GiB; without, 2 and 0.5.
        variable("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false"),
    ];
    let secret = artifacts.and_then(|artifacts| artifacts.env_from_secret.as_ref());
    let env_from = secret.map(|secret| {
        vec![EnvFromSource {
            secret_ref: Some(SecretEnvSource { name: secret.name.clone(), optional: None }),
            ..Default::default()
        }]
    });
    Container {
        name: "mlflow".to_owned(),
        command: Some(vec!["mlflow".to_owned()]),
        args: Some(args),
        env_from,
        ports: Some(vec![ContainerPort {
            name: Some(PORT_NAME.to_owned()),
            container_port: i32::from(standalone.port),
            protocol: Some("TCP".to_owned()),
            ..Default::default()
        }]),
        // A start takes 6 to 15 s on an idle machine; 180 s are for a busy one. Asked every 2 s, so that MLflow counts as
        // ready as soon as it is.
        startup_probe: Some(probe(2, 5, 90)),
        // Under load /health itself takes 3.5 s: the usual timeout of 1 s would kill a server for being busy.
        readiness_probe: Some(probe(5, 5, 3)),
        liveness_probe: Some(probe(10, 10, 6)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..container(standalone, env)
    }
}

/// What both containers share.
fn container(standalone: &StandaloneSettings, mut env: Vec<EnvVar>) -> Container {
    if let Some(secret) = &standalone.backend_store_secret {
        let reference = SecretKeySelector { name: secret.name.clone(), key: secret.key.clone(), optional: None };
        env.push(EnvVar {
            name: "MLFLOW_BACKEND_STORE_URI".to_owned(),
            value_from: Some(EnvVarSource { secret_key_ref: Some(reference), ..Default::default() }),
            value: None,
        });
    }
    env.extend([
        variable("MLFLOW_DISABLE_TELEMETRY", "true"),
        variable("HOME", TMP_PATH),
        variable("TMPDIR", TMP_PATH),
    ]);
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..Default::default()
    };
    Container {
        image: Some(standalone.image.clone()),
        image_pull_policy: Some(pull_policy(standalone.image_pull_policy).to_owned()),
        working_dir: Some(DATA_PATH.to_owned()),
        env: Some(env),
        // Equal in the init container, or a Guaranteed pod would lose its class.
        resources: Some(ResourceRequirements {
            limits: non_empty(&standalone.resources.limits),
            requests: non_empty(&standalone.resources.requests),
            claims: None,
        }),
        volume_mounts: Some(vec![mount(DATA, DATA_PATH), mount(TMP, TMP_PATH)]),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Host headers that MLflow answers; every other gets 403, and the list replaces MLflow's own. It compares exactly and
/// with the port, so each name stands once without and once with any.
fn allowed_hosts(settings: &Settings, standalone: &StandaloneSettings, platform: &Platform) -> Vec<String> {
    let (name, namespace) = (settings.object_name(), &settings.namespace);
    let in_cluster = [
        name.clone(),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.{}", platform.cluster_domain),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    let user = standalone.allowed_hosts.iter().cloned();
    let all = in_cluster.into_iter().chain(user).flat_map(|host| {
        // Where the user's has a port, or ends with a pattern that takes one in, it is complete.
        let any_port = (!host.contains(':') && !host.ends_with('*')).then(|| format!("{host}:*"));
        [Some(host), any_port].into_iter().flatten()
    });
    let mut seen = BTreeSet::new();
    all.filter(|host| seen.insert(host.clone())).collect()
}

fn pod_security(platform: &Platform) -> PodSecurityContext {
    let non_root = PodSecurityContext { run_as_non_root: Some(true), ..Default::default() };
    if platform.openshift {
        // The SCC gives uid, fsGroup and seccomp profile, and refuses foreign ones.
        return non_root;
    }
    PodSecurityContext {
        // The official image names no user: without a number the kubelet refuses to start it as non-root.
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        // Without it the volume is root's.
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..non_root
    }
}

fn data_volume(settings: &Settings, standalone: &StandaloneSettings) -> Volume {
    if !needs_volume(standalone) {
        return empty_dir(DATA, "1Gi");
    }
    let claim = PersistentVolumeClaimVolumeSource { claim_name: settings.object_name(), read_only: None };
    Volume { name: DATA.to_owned(), persistent_volume_claim: Some(claim), ..Default::default() }
}

fn empty_dir(name: &str, size: &str) -> Volume {
    let source = EmptyDirVolumeSource { size_limit: Some(Quantity(size.to_owned())), ..Default::default() };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Default::default() }
}

/// Only /health: the kubelet sends the pod's address as Host, which every other path answers with 403.
fn probe(period: i32, timeout: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/health".to_owned()),
            port: IntOrString::String(PORT_NAME.to_owned()),
            ..Default::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(timeout),
        failure_threshold: Some(failures),
        ..Default::default()
    }
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

fn pull_policy(policy: ImagePullPolicy) -> &'static str {
    match policy {
        ImagePullPolicy::Always => "Always",
        ImagePullPolicy::IfNotPresent => "IfNotPresent",
        ImagePullPolicy::Never => "Never",
    }
}

const MIGRATE: &str = include_str!("../migrate.py");
const DATA: &str = "data";
const DATA_PATH: &str = "/mlflow";
const DATABASE: &str = "/mlflow/mlflow.db";
const ARTIFACTS: &str = "/mlflow/mlartifacts";
const TMP: &str = "tmp";
const TMP_PATH: &str = "/tmp";
/// "nonroot" of distroless images; MLflow runs as any.
pub(super) const USER: i64 = 65532;
