//! The relay's pods: the operator's own program, each with a volume for what MLflow does not take at the moment.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, ContainerPort, HTTPGetAction, KeyToPath, LocalObjectReference,
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecurityContext, Volume, VolumeMount,
    VolumeProjection, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::deployment::USER;
use super::relay::{labels, metadata, selector_labels};
use super::{non_empty, quantity};
use crate::core::settings::{Platform, RelaySettings, RelayVolume, Settings};
use crate::core::wiring::parts::ca_sources_of;
use crate::names;

/// A port of the relay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port {
    pub name: &'static str,
    pub number: i32,
}

/// For agents, for agents that speak OTLP, and its own: probes, metrics, evidence.
pub(super) const PORTS: [Port; 3] = [
    Port { name: "http", number: names::RELAY_PORT as i32 },
    Port { name: "otlp-http", number: names::RELAY_OTLP_PORT as i32 },
    Port { name: OWN_PORT, number: names::RELAY_OWN_PORT as i32 },
];

/// The StatefulSet.
pub(super) fn stateful_set(settings: &Settings, relay: &RelaySettings, platform: &Platform) -> StatefulSet {
    StatefulSet {
        metadata: metadata(settings),
        spec: StatefulSetSpec {
            replicas: Some(i32::from(relay.replicas)),
            service_name: Some(names::relay_object(&settings.name)),
            // A pod that does not become ready must not keep the others from starting.
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: None,
            }),
            revision_history_limit: Some(3),
            selector: LabelSelector { match_labels: Some(selector_labels(settings)), match_expressions: None },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels(settings)), ..ObjectMeta::default() }),
                spec: Some(pod(settings, relay, platform)),
            },
            volume_claim_templates: relay.volume.as_ref().map(|volume| vec![claim(settings, volume)]),
            // What a claim holds was answered with 200 and is not in MLflow yet.
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Retain".to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            ..StatefulSetSpec::default()
        },
        status: None,
    }
}

fn claim(settings: &Settings, volume: &RelayVolume) -> PersistentVolumeClaim {
    let RelayVolume { size, storage_class_name } = volume;
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(SPOOL.to_owned()), labels: Some(labels(settings)), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(size.clone()))])),
                limits: None,
            }),
            storage_class_name: storage_class_name.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn pod(settings: &Settings, relay: &RelaySettings, platform: &Platform) -> PodSpec {
    let pull_secrets = platform.merge_ca.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    PodSpec {
        containers: vec![container(settings, relay, platform)],
        volumes: Some(vec![authorities(relay)]),
        image_pull_secrets: non_empty(&pull_secrets.collect::<Vec<_>>()),
        service_account_name: Some(names::relay_object(&settings.name)),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        security_context: Some(pod_security(platform)),
        // It ends within three seconds; what it holds is on the volume.
        termination_grace_period_seconds: Some(30),
        ..PodSpec::default()
    }
}

fn container(settings: &Settings, relay: &RelaySettings, platform: &Platform) -> Container {
    let port = |Port { name, number }: Port| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let spool = relay.volume.as_ref().map(|_| mount(SPOOL, SPOOL_PATH, false));
    Container {
        name: names::RELAY.to_owned(),
        image: Some(platform.merge_ca.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(args(settings, relay)),
        ports: Some(PORTS.map(port).to_vec()),
        liveness_probe: Some(probe("/livez", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 3)),
        resources: Some(ResourceRequirements {
            limits: non_empty(&relay.resources.limits),
            requests: non_empty(&relay.resources.requests),
            claims: None,
        }),
        volume_mounts: Some(spool.into_iter().chain([mount(AUTHORITIES, AUTHORITIES_PATH, true)]).collect()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn args(settings: &Settings, relay: &RelaySettings) -> Vec<String> {
    let mut args = vec![
        "relay".to_owned(),
        format!("--namespace={}", settings.namespace),
        format!("--tracing={}", settings.name),
        format!("--ca-file={}", names::SERVICE_CA),
        format!("--ca-file={AUTHORITIES_PATH}"),
    ];
    if settings.needs_token() {
        args.push(format!("--token-file={}/token", names::TOKEN_FOLDER));
    }
    if let Some(bytes) = relay.volume.as_ref().and_then(|volume| quantity::parse(&volume.size)) {
        // In units of 10⁻⁹. The other half is for the database's own pages and for its repair after a crash.
        args.extend([format!("--spool={SPOOL_PATH}"), format!("--spool-size={}", bytes / 1_000_000_000 / 2)]);
    }
    args
}

/// The authorities of the namespace: those that OpenShift and OpenShift AI put there, and the user's.
fn authorities(relay: &RelaySettings) -> Volume {
    let source = |(name, key, path): (String, String, String)| VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name,
            items: Some(vec![KeyToPath { key, path, ..KeyToPath::default() }]),
            optional: Some(true),
        }),
        ..VolumeProjection::default()
    };
    let sources = ca_sources_of(&relay.authorities).into_iter().map(source).collect();
    Volume {
        name: AUTHORITIES.to_owned(),
        projected: Some(ProjectedVolumeSource { sources: Some(sources), ..ProjectedVolumeSource::default() }),
        ..Volume::default()
    }
}

fn pod_security(platform: &Platform) -> PodSecurityContext {
    let non_root = PodSecurityContext { run_as_non_root: Some(true), ..PodSecurityContext::default() };
    if platform.openshift {
        // The SCC gives uid, fsGroup and seccomp profile, and refuses foreign ones.
        return non_root;
    }
    PodSecurityContext {
        // Without it the volume is root's.
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..non_root
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(OWN_PORT.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

const OWN_PORT: &str = "metrics";
const SPOOL: &str = "spool";
const SPOOL_PATH: &str = "/spool";
const AUTHORITIES: &str = "authorities";
const AUTHORITIES_PATH: &str = "/etc/agent-tracing/authorities";
