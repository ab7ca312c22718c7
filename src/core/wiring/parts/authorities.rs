//! The certificate authorities: a volume with the merged file, mounted in each agent, and an init container that fills it. Where
//! that has no place the operator merges them itself, into a ConfigMap.

use serde_json::{Value, json};

use super::ca_sources::projected_sources;
use super::{ContainerKind, FallbackAnnotations, Image, InitContainer, PartKind, PodPart};
use crate::api::CaBundleStrategy;
use crate::core::ca_bundle::AGENT_SCRIPT;
use crate::core::settings::policy::CaChoice;
use crate::core::wiring::{INSECURE_TLS, REQUESTS_CA_BUNDLE, REQUESTS_TRUST, SERVER_CERT_PATH};
use crate::names;

/// The certificate authorities.
pub static AUTHORITIES: PartKind = PartKind {
    folders: &[names::CA_VOLUME],
    volumes: &[names::CA_SOURCES_VOLUME],
    init_containers: &[ContainerKind {
        name: names::MERGE_CA,
        mounts: &[names::CA_FOLDER, names::CA_SOURCES_FOLDER],
        env: &[],
    }],
    mounts: &[names::CA_FOLDER],
    rivals: &[
        (REQUESTS_CA_BUNDLE, &REQUESTS_TRUST),
        // The SDK refuses to work with both: zero traces.
        (SERVER_CERT_PATH, &[INSECURE_TLS]),
    ],
    users_choice: "a container's own value wins; a pod with its own container merge-ca, volume ca-bundle or mount at /tmp/ca-bundle \
           gets none of the three",
    fallback: Some(FallbackAnnotations {
        not_started: names::ANNOTATION_MERGE_CA_FAILED,
        refused: names::ANNOTATION_MERGE_CA_REFUSED,
    }),
};

/// What a choice of authorities gives a pod.
pub fn part(choice: &CaChoice) -> PodPart {
    let CaChoice { strategy, scope: _, config_maps } = choice;
    let (image, command, args) = match strategy {
        CaBundleStrategy::ConfigMap => return of_config_map(),
        CaBundleStrategy::InitContainer => (Image::Operator, Vec::new(), vec![names::MERGE_CA]),
        CaBundleStrategy::AgentInitContainer => (Image::Agent, vec!["/bin/sh", "-c", AGENT_SCRIPT], Vec::new()),
    };
    let folder = json!({"name": names::CA_VOLUME, "emptyDir": {"sizeLimit": SIZE_LIMIT}});
    let sources = json!({"name": names::CA_SOURCES_VOLUME, "projected": {"sources": projected_sources(config_maps)}});
    let merge_ca = InitContainer {
        name: names::MERGE_CA,
        image,
        command: command.into_iter().map(str::to_owned).collect(),
        args: args.into_iter().map(str::to_owned).collect(),
        mounts: vec![
            json!({"name": names::CA_VOLUME, "mountPath": names::CA_FOLDER}),
            json!({"name": names::CA_SOURCES_VOLUME, "mountPath": names::CA_SOURCES_FOLDER, "readOnly": true}),
        ],
        more: serde_json::Map::new(),
    };
    PodPart {
        kind: &AUTHORITIES,
        volumes: vec![folder, sources],
        init_containers: vec![merge_ca],
        mounts: vec![mount()],
        fallback: Some(Box::new(of_config_map())),
    }
}

fn of_config_map() -> PodPart {
    let items = json!([{"key": names::CA_FILE, "path": names::CA_FILE}]);
    let map = json!({"name": names::CA_CONFIG_MAP, "items": items, "optional": true});
    PodPart {
        kind: &AUTHORITIES,
        volumes: vec![json!({"name": names::CA_VOLUME, "configMap": map})],
        init_containers: Vec::new(),
        mounts: vec![mount()],
        fallback: None,
    }
}

fn mount() -> Value {
    json!({"name": names::CA_VOLUME, "mountPath": names::CA_FOLDER, "readOnly": true})
}

/// Room for 2,000 authorities many times over.
const SIZE_LIMIT: &str = "32Mi";
