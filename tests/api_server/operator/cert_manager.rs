//! The webhook's certificate from cert-manager itself: its own controllers run beside the API server. What the kubelet does with
//! the Secret, the test does.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use agent_tracing::names;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::process::Operator;
use super::{Site, agent, is_wired, prepare};
use crate::cluster::{Cluster, Namespace, STRICT, kind, kubectl, kustomize, name, wait_until};
use crate::component::kustomization;
use crate::support::documents;

#[test]
#[ignore = "needs an API server: make test"]
fn what_cert_manager_makes_renews_and_makes_anew_is_served_without_a_missed_admission() {
    prepare();
    let _cert_manager = CertManager::start();
    let _component = Component::install();
    let mounted = Mounted::follow();
    let folder = mounted.folder.to_str().unwrap().to_owned();
    let namespace = Namespace::create("operator-cert-manager", json!({names::LABEL_INJECTION: names::ENABLED}));
    let more = ["--certificate-source", "CertManager", "--certificate-dir", folder.as_str()];
    let operator = Some(Operator::start_with(&namespace.0, &more));
    let site = Site { admin: Cluster::admin(), node: RefCell::default(), namespace, operator };
    site.mlflow_answers();
    site.wait_until_wired();
    assert!(
        site.admin.get("Secret", names::OPERATOR_NAMESPACE, names::WEBHOOK_CA_SECRET).is_err(),
        "none is the operator's"
    );

    let shown = || site.operator().metric("agent_tracing_webhook_certificate_expiry_timestamp_seconds");
    let wired_until = |what: &str, holds: &dyn Fn() -> bool| {
        wait_until(what, || {
            assert!(is_wired(&site.dry_run(&agent(&site.namespace.0, "probe"))), "{what}: an admission was missed");
            holds()
        });
    };
    let first = mounted.certificate();
    let until = shown();
    // Expiry is told by the second.
    std::thread::sleep(Duration::from_secs(1));
    renew(&site.admin, names::WEBHOOK_CERTIFICATE);
    wired_until("a renewed certificate is served", &|| mounted.certificate() != first && shown() > until);

    let (second, until) = (mounted.certificate(), shown());
    std::thread::sleep(Duration::from_secs(1));
    site.admin.delete("Secret", names::OPERATOR_NAMESPACE, names::WEBHOOK_TLS_SECRET);
    wired_until("a lost Secret is made anew", &|| mounted.certificate() != second && shown() > until);

    let bundle = || {
        let live = site.admin.get("MutatingWebhookConfiguration", "", names::WEBHOOK_CONFIGURATION).unwrap();
        live["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned()
    };
    let before = bundle();
    renew(&site.admin, "agent-tracing-webhook-authority");
    // It signs with the key that it had: what is served meanwhile is still believed. caBundle follows with the next leaf.
    wired_until("a renewed authority signs", &|| {
        let authority = site.admin.get("Secret", names::OPERATOR_NAMESPACE, "agent-tracing-webhook-authority").unwrap();
        STANDARD.decode(&before).unwrap() != STANDARD.decode(authority["data"]["tls.crt"].as_str().unwrap()).unwrap()
    });
    renew(&site.admin, names::WEBHOOK_CERTIFICATE);
    wired_until("caBundle holds the renewed authority", &|| bundle() != before);
    site.close();
}

/// As `cmctl renew` does.
fn renew(admin: &Cluster, certificate: &str) {
    let mut live = admin.get("Certificate", names::OPERATOR_NAMESPACE, certificate).unwrap();
    let issuing = json!({"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "renewed by hand",
        "lastTransitionTime": "2026-11-22T00:00:00Z"});
    let conditions = live["status"]["conditions"].as_array_mut().unwrap();
    conditions.retain(|condition| condition["type"] != "Issuing");
    conditions.push(issuing);
    live["metadata"]["managedFields"] = Value::Null;
    admin.merge_subresource(&live, "status", STRICT).unwrap();
}

/// What the component changes, but for the operator's Deployment.
struct Component;

impl Component {
    /// The certificate is also one of this machine's.
    fn install() -> Self {
        let rendered = kubectl(&["kustomize", kustomization("cert-manager").to_str().unwrap()], "").unwrap();
        let admin = Cluster::admin();
        admin.delete("MutatingWebhookConfiguration", "", names::WEBHOOK_CONFIGURATION);
        // Other tests' operators made one.
        admin.delete("Secret", names::OPERATOR_NAMESPACE, names::WEBHOOK_CA_SECRET);
        for mut object in documents(&rendered) {
            match kind(&object) {
                "MutatingWebhookConfiguration" => {
                    admin.create(&object, STRICT).unwrap();
                }
                "Role" => {
                    admin.apply(&object, "kubectl", "force=true").unwrap();
                }
                "Issuer" | "Certificate" => {
                    if name(&object) == names::WEBHOOK_CERTIFICATE && kind(&object) == "Certificate" {
                        object["spec"]["ipAddresses"] = json!(["127.0.0.1"]);
                    }
                    kubectl(&["apply", "-f", "-"], &object.to_string()).unwrap();
                }
                _ => {}
            }
        }
        Self
    }
}

impl Drop for Component {
    /// The rights that the other tests' operators have.
    fn drop(&mut self) {
        let admin = Cluster::admin();
        for object in kustomize().iter().filter(|object| kind(object) == "Role") {
            let _ = admin.apply(object, "kubectl", "force=true");
        }
    }
}

/// cert-manager's controllers and its cainjector.
struct CertManager(Child);

impl CertManager {
    fn start() -> Self {
        let program = std::env::var("CERT_MANAGER").expect("CERT_MANAGER: tests/cluster/binaries.sh path cert-manager");
        let definitions = format!("{program}.yaml");
        kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &definitions], "").unwrap();
        kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &definitions], "").unwrap();
        let log = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cert-manager.log")).unwrap();
        let mut command = Command::new(program);
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for CertManager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder as the kubelet keeps it: links to links, of which one is swapped when the Secret changes. A Secret that is gone
/// changes nothing.
struct Mounted {
    folder: PathBuf,
    ends: Arc<AtomicBool>,
    kubelet: Option<JoinHandle<()>>,
}

impl Mounted {
    fn follow() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("webhook-tls");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for file in FILES {
            symlink(format!("..data/{file}"), folder.join(file)).unwrap();
        }
        let ends = Arc::new(AtomicBool::new(false));
        let kubelet = std::thread::spawn({
            let (folder, ends) = (folder.clone(), ends.clone());
            move || {
                let admin = Cluster::admin();
                let mut known = Value::Null;
                while !ends.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(300));
                    let Ok(secret) = admin.get("Secret", names::OPERATOR_NAMESPACE, names::WEBHOOK_TLS_SECRET) else {
                        continue;
                    };
                    if secret["data"] != known && FILES.iter().all(|file| secret["data"][*file].is_string()) {
                        swap(&folder, &secret);
                        known = secret["data"].clone();
                    }
                }
            }
        });
        Self { folder, ends, kubelet: Some(kubelet) }
    }

    fn certificate(&self) -> Vec<u8> {
        fs::read(self.folder.join("tls.crt")).unwrap()
    }
}

fn swap(folder: &Path, secret: &Value) {
    let version = format!("..{}", secret["metadata"]["resourceVersion"].as_str().unwrap());
    fs::create_dir_all(folder.join(&version)).unwrap();
    for file in FILES {
        let bytes = STANDARD.decode(secret["data"][file].as_str().unwrap()).unwrap();
        fs::write(folder.join(&version).join(file), bytes).unwrap();
    }
    symlink(&version, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(kubelet) = self.kubelet.take() {
            let _ = kubelet.join();
        }
    }
}

const FILES: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];
