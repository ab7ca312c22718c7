//! Two parts as others may be, for tests: a native side container with a token of its own, and an init container that copies a
//! library into a folder from which agents load it.

use serde_json::json;

use super::{ContainerKind, FallbackAnnotations, Image, InitContainer, PartKind, PodPart};

pub static SPOOL: PartKind = PartKind {
    folders: &["spool"],
    volumes: &["spool-token"],
    init_containers: &[ContainerKind { name: "spooler", mounts: &["/spool", "/token"], env: &["SPOOL_TO"] }],
    mounts: &[],
    rivals: &[],
    users_choice: "a pod with its own container spooler gets none of it",
    fallback: None,
};

pub static LIBRARY: PartKind = PartKind {
    folders: &["library"],
    volumes: &[],
    init_containers: &[ContainerKind { name: "copy-library", mounts: &["/library"], env: &[] }],
    mounts: &["/library"],
    rivals: &[("LIBRARY_PATH", &["LIBRARY_HOME"])],
    users_choice: "a container's own value wins",
    fallback: Some(FallbackAnnotations {
        not_started: "agenttracing.dev/library-failed",
        refused: "agenttracing.dev/library-refused",
    }),
};

pub fn spool(audience: &str, to: &str) -> PodPart {
    let token = json!({"serviceAccountToken": {"audience": audience, "path": "token", "expirationSeconds": 3600}});
    let more = json!({
        "restartPolicy": "Always",
        "env": [{"name": "SPOOL_TO", "value": to}],
        "resources": {"requests": {"memory": "32Mi"}},
    });
    PodPart {
        kind: &SPOOL,
        volumes: vec![
            json!({"name": "spool", "emptyDir": {"sizeLimit": "64Mi"}}),
            json!({"name": "spool-token", "projected": {"sources": [token]}}),
        ],
        init_containers: vec![InitContainer {
            name: "spooler",
            image: Image::Operator,
            command: Vec::new(),
            args: vec!["spool".to_owned()],
            mounts: vec![
                json!({"name": "spool", "mountPath": "/spool"}),
                json!({"name": "spool-token", "mountPath": "/token", "readOnly": true}),
            ],
            more: more.as_object().cloned().unwrap_or_default(),
        }],
        mounts: Vec::new(),
        fallback: None,
    }
}

pub fn library(image: &str) -> PodPart {
    PodPart {
        kind: &LIBRARY,
        volumes: vec![json!({"name": "library", "emptyDir": {}})],
        init_containers: vec![InitContainer {
            name: "copy-library",
            image: Image::Given(image.to_owned()),
            command: ["cp", "-a", "/lib/.", "/library"].map(str::to_owned).into(),
            args: Vec::new(),
            mounts: vec![json!({"name": "library", "mountPath": "/library"})],
            more: serde_json::Map::new(),
        }],
        mounts: vec![json!({"name": "library", "mountPath": "/library", "readOnly": true})],
        fallback: None,
    }
}
