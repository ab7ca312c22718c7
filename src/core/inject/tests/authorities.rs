//! The certificate authorities in a pod, and their init container.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{CaBundleScope, CaBundleStrategy, ContainerNames};
use crate::core::inject::fingerprint::of_container;
use crate::core::inject::view::{Container, Workload};
use crate::core::inject::{InjectionResult, inject};
use crate::core::selection::kind::Kind;
use crate::core::settings::policy::CaChoice;
use crate::core::settings::{MergeCa, Platform};
use crate::core::wiring::parts::AUTHORITIES;
use crate::core::wiring::parts::authorities::part;
use crate::core::wiring::{Entry, Group, TRACKING_URI, Wiring};
use crate::names;

fn injected(spec: Value, platform: &Platform) -> InjectionResult {
    let workload = json!({"metadata": {"name": "till"}, "spec": {"template": {"spec": spec}}});
    let wiring = wiring(CaBundleStrategy::InitContainer);
    inject(&Workload::read(Kind::Deployment, &workload).unwrap(), &wiring, &ContainerNames::default(), platform)
        .unwrap()
}

fn wiring(strategy: CaBundleStrategy) -> Wiring {
    let entry = |name: &str, group| Entry { name: name.to_owned(), value: "x".to_owned(), group, why: "for the test" };
    Wiring {
        tracing: "tracing".to_owned(),
        experiment: "till".to_owned(),
        env: vec![entry(TRACKING_URI, Group::Address), entry("REQUESTS_CA_BUNDLE", Group::Part(&AUTHORITIES))],
        parts: vec![part(&CaChoice { strategy, scope: CaBundleScope::All, config_maps: Vec::new() })],
        token: None,
        renews: true,
    }
}

/// What the patch puts at or below a list of the pod.
fn added(injection: &InjectionResult, list: &str) -> Value {
    let patch = serde_json::to_value(&injection.patch).unwrap();
    let path = format!("/spec/template/spec/{list}");
    let of_list = |op: &&Value| op["path"].as_str().is_some_and(|p| p == path || p.starts_with(&format!("{path}/")));
    patch.as_array().unwrap().iter().find(of_list).map_or(Value::Null, |op| op["value"].clone())
}

#[test]
fn whatever_stands_where_the_authorities_go_withholds_them_alone() {
    let container = |name: &str| json!({"name": name, "image": "x"});
    let mounted =
        |path: &str| json!({"name": "agent", "image": "x", "volumeMounts": [{"name": "v", "mountPath": path}]});
    for (spec, kept) in [
        (json!({"containers": [container("agent"), container("merge-ca")]}), "container/merge-ca"),
        (
            json!({"containers": [container("agent")], "initContainers": [container("merge-ca")]}),
            "initContainer/merge-ca",
        ),
        (json!({"containers": [container("agent")], "volumes": [{"name": "ca-bundle"}]}), "volume/ca-bundle"),
        (json!({"containers": [mounted("/tmp/ca-bundle/")]}), "mount:/tmp/ca-bundle"),
        (json!({"containers": [mounted("/tmp/ca-bundle/mine")]}), "mount:/tmp/ca-bundle/mine"),
    ] {
        let injection = injected(spec, &Platform::default());
        assert_eq!(injection.notes.first().map(ToString::to_string), Some(format!("KeptByUser pod: {kept}")));
        assert_eq!(injection.skipped, None, "{kept}: the rest is wired");
        for list in ["volumes", "initContainers"] {
            assert_eq!(added(&injection, list), Value::Null, "{kept}");
        }
    }
    let beside = injected(json!({"containers": [mounted("/tmp/ca-bundle-old")]}), &Platform::default());
    assert_eq!(beside.notes, []);
}

/// Cases B30 and B43.
#[test]
fn where_the_mount_point_cannot_be_made_the_authorities_are_withheld_and_the_container_starts() {
    let kept = |container: Value, volume: Value| {
        let injection = injected(json!({"containers": [container], "volumes": [volume]}), &Platform::default());
        assert_eq!(injection.skipped, None);
        injection.notes.first().map(ToString::to_string)
    };
    let mounted = |path: &str, read_only: bool| {
        let mount = json!({"name": "v", "mountPath": path, "readOnly": read_only});
        json!({"name": "agent", "image": "x", "volumeMounts": [mount]})
    };
    let volume = |source: &str, value: Value| json!({"name": "v", source: value});
    let claim = || volume("persistentVolumeClaim", json!({"claimName": "c"}));
    for (read_only, source) in [
        (true, claim()),
        (true, volume("emptyDir", json!({}))),
        (true, volume("hostPath", json!({"path": "/x"}))),
        (false, volume("image", json!({"reference": "x"}))),
        (false, volume("persistentVolumeClaim", json!({"claimName": "c", "readOnly": true}))),
        (false, volume("csi", json!({"driver": "d", "readOnly": true}))),
    ] {
        for path in ["/tmp", "/tmp/", "//tmp/.", "/x/../tmp"] {
            let found = kept(mounted(path, read_only), source.clone());
            assert_eq!(found.as_deref(), Some("KeptByUser pod: mount:/tmp"), "{path} {source}");
        }
    }
    for (read_only, source) in [
        (false, claim()),
        (false, volume("emptyDir", json!({}))),
        (true, volume("configMap", json!({"name": "m"}))),
        (true, volume("secret", json!({"secretName": "s"}))),
        (true, volume("downwardAPI", json!({}))),
        (true, volume("projected", json!({"sources": []}))),
    ] {
        assert_eq!(kept(mounted("/tmp", read_only), source.clone()), None, "{source}");
    }
    for path in ["/tmp//ca-bundle", "/tmp/./ca-bundle", "/tmp/x/../ca-bundle/", "tmp/ca-bundle"] {
        let found = kept(mounted(path, false), claim());
        assert_eq!(found.as_deref(), Some("KeptByUser pod: mount:/tmp/ca-bundle"), "{path}");
    }
    let device = json!({"name": "agent", "volumeDevices": [{"name": "v", "devicePath": "/tmp/ca-bundle"}]});
    assert_eq!(kept(device, claim()).as_deref(), Some("KeptByUser pod: device:/tmp/ca-bundle"));
}

/// Finding A4, cases B05, B06, B07 and B19.
#[test]
fn the_init_container_asks_for_what_its_agent_asks_for_and_no_more() {
    let resources = |agent: Value| {
        let spec = json!({"containers": [{"name": "agent", "image": "x", "resources": agent}]});
        added(&injected(spec, &Platform::default()), "initContainers")[0]["resources"].clone()
    };
    for none in [Value::Null, json!({}), json!({"limits": {}, "requests": {"nvidia.com/gpu": 1}})] {
        assert_eq!(resources(none), Value::Null, "the pod keeps its QoS class");
    }
    let asked = json!({
        "limits": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "2Gi", "nvidia.com/gpu": "1"},
        "requests": {"cpu": 1, "hugepages-2Mi": "2Mi"},
        "claims": [{"name": "gpu"}],
    });
    let expected = json!({
        "limits": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "2Gi"},
        "requests": {"cpu": 1},
    });
    assert_eq!(resources(asked), expected);
}

/// Case B36: `oauth2-proxy`, whose image has no shell, stands first in many pods.
#[test]
fn the_agents_shell_is_that_of_the_container_people_mean() {
    let image = |annotations: Value| {
        let pod = json!({"containers": [{"name": "helper", "image": "h"}, {"name": "agent", "image": "a"}]});
        let template = json!({"metadata": {"annotations": annotations}, "spec": pod});
        let workload = json!({"metadata": {"name": "till"}, "spec": {"template": template}});
        let wiring = wiring(CaBundleStrategy::AgentInitContainer);
        let read = Workload::read(Kind::Deployment, &workload).unwrap();
        let injection = inject(&read, &wiring, &ContainerNames::default(), &Platform::default()).unwrap();
        added(&injection, "initContainers")[0]["image"].clone()
    };
    assert_eq!(image(json!({})), "h");
    assert_eq!(image(json!({"kubectl.kubernetes.io/default-container": "agent"})), "a");
    assert_eq!(image(json!({"kubectl.kubernetes.io/default-container": "gone"})), "h");
}

#[test]
fn on_openshift_the_scc_gives_uid_and_seccomp_profile() {
    let root = json!({"containers": [{"name": "agent", "image": "x"}], "securityContext": {"runAsUser": 0}});
    let context = |openshift| {
        let injection = injected(root.clone(), &Platform { openshift, ..Platform::default() });
        added(&injection, "initContainers")[0]["securityContext"].clone()
    };
    assert_eq!(
        (&context(false)["runAsUser"], &context(false)["seccompProfile"]["type"]),
        (&json!(65532), &json!("RuntimeDefault"))
    );
    assert_eq!((&context(true)["runAsUser"], &context(true)["seccompProfile"]), (&Value::Null, &Value::Null));
    assert_eq!(context(true)["runAsNonRoot"], true);
}

#[test]
fn pull_secrets_are_appended_by_name_and_none_stands_there_twice() {
    let merge_ca = MergeCa { pull_secrets: vec!["own".into(), "mirror".into()], ..MergeCa::default() };
    let platform = Platform { merge_ca, ..Platform::default() };
    let spec = json!({"containers": [{"name": "agent", "image": "x"}], "imagePullSecrets": [{"name": "own"}]});
    assert_eq!(added(&injected(spec, &platform), "imagePullSecrets"), json!({"name": "mirror"}));
}

#[test]
fn a_token_that_the_api_server_mounts_leaves_our_init_container_ours() {
    let spec = json!({"containers": [{"name": "agent", "image": "x"}]});
    let mut init_container = added(&injected(spec, &Platform::default()), "initContainers")[0].clone();
    let before = of_container(&Container::deserialize(&init_container).unwrap());
    let mounts = init_container["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({"name": "kube-api-access-x7k2p", "mountPath": names::TOKEN_FOLDER, "readOnly": true}));
    assert_eq!(of_container(&Container::deserialize(&init_container).unwrap()), before);
}

#[test]
fn the_merge_stands_before_an_agent_that_is_an_init_container() {
    let spec = json!({
        "containers": [{"name": "agent", "image": "x"}],
        "initContainers": [{"name": "migrate", "image": "x"}, {"name": "embedder", "image": "x", "restartPolicy": "Always"}],
    });
    let patch = serde_json::to_string(&injected(spec, &Platform::default()).patch).unwrap();
    assert!(patch.contains(r#""path":"/spec/template/spec/initContainers/1","value":{"name":"merge-ca""#), "{patch}");
}
