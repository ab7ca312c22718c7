//! A block device of the node, as a claim of its own (case B43).

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::world::{Scene, kubectl, typed};

const VOLUME: &str = "cases-block";
const BYTES: u64 = 16 << 20;

/// A loop device on a file, and the volume that names it. Both go with it.
pub struct BlockDevice {
    file: PathBuf,
    path: String,
}

impl BlockDevice {
    pub fn attach() -> Self {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cases-block.img");
        File::create(&file).unwrap().set_len(BYTES).unwrap();
        let attached = Command::new("losetup").args(["--find", "--show"]).arg(&file).output().unwrap();
        assert!(attached.status.success(), "losetup: {}", String::from_utf8_lossy(&attached.stderr));
        Self { file, path: String::from_utf8(attached.stdout).unwrap().trim().to_owned() }
    }

    /// A claim of a name that has the device.
    pub fn claim(&self, scene: &Scene, name: &str) {
        let _ = kubectl(&["delete", "persistentvolume", VOLUME, "--ignore-not-found", "--timeout=30s"], "");
        let node = typed(&["get", "nodes", "--output=jsonpath={.items[0].metadata.labels.kubernetes\\.io/hostname}"]);
        let here = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]);
        let size = json!({"storage": BYTES.to_string()});
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": VOLUME},
            "spec": {
                "capacity": size, "volumeMode": "Block", "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain", "local": {"path": self.path},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}},
            },
        });
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {
                "volumeMode": "Block", "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": VOLUME,
                "resources": {"requests": size},
            },
        });
        kubectl(&["create", "-f", "-"], &volume.to_string()).unwrap();
        scene.apply(&claim.to_string());
    }
}

impl Drop for BlockDevice {
    /// The volume goes before its claim does: of one that is released the node would empty the folder.
    fn drop(&mut self) {
        let _ = kubectl(&["delete", "persistentvolume", VOLUME, "--ignore-not-found", "--wait=false"], "");
        // Detached once nobody has it open any more.
        let _ = Command::new("losetup").args(["--detach", &self.path]).status();
        let _ = std::fs::remove_file(&self.file);
    }
}
