//! `config/default` with one of its components, as a user's own kustomization has it.

use std::path::{Path, PathBuf};

use serde_json::json;

/// The folder for `kubectl kustomize`.
pub fn kustomization(component: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("with-{component}"));
    std::fs::create_dir_all(&directory).expect("a folder");
    // kustomize takes relative paths only.
    let up = "../".repeat(directory.components().count() - 1);
    let config = format!("{up}{}/config", env!("CARGO_MANIFEST_DIR").trim_start_matches('/'));
    let kustomization = json!({
        "resources": [format!("{config}/default")], "components": [format!("{config}/certificate/{component}")],
    });
    std::fs::write(directory.join("kustomization.yaml"), kustomization.to_string()).expect("writes");
    directory
}
