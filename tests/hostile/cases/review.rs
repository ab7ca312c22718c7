//! Reviews that can be read, about what is none of ours, or in forms that an API server does not send.

use serde_json::{Value, json};

use super::case::{Case, Hears};
use super::{request, review};

pub fn cases() -> Vec<Case> {
    [uids(), kinds(), operations(), places(), forms()].into_iter().flatten().collect()
}

fn with(name: impl Into<String>, hears: Hears, change: impl FnOnce(&mut Value)) -> Case {
    let mut review = review();
    change(&mut review["request"]);
    Case::new(name, request("", review.to_string()), hears)
}

fn uids() -> Vec<Case> {
    let refused = || Hears::Codes(vec![400]);
    [
        ("a uid of nothing", String::new(), refused()),
        ("a uid of one character", "ü".into(), Hears::Patched),
        ("a uid of 128 characters, which are more bytes", "ü".repeat(128), Hears::Patched),
        ("a uid of 129 characters", "ü".repeat(129), refused()),
        ("a uid of a mebibyte", "u".repeat(1 << 20), refused()),
        ("a uid of control characters", "\0\r\n\t\x1b\x7f".into(), Hears::Patched),
    ]
    .into_iter()
    .map(|(name, uid, hears)| with(name, hears, |request| request["uid"] = json!(uid)))
    .chain([with("no uid", refused(), |request| drop(request.as_object_mut().unwrap().remove("uid")))])
    .collect()
}

fn kinds() -> Vec<Case> {
    let mut cases = Vec::new();
    // Versions are the API server's to convert: it sends what the webhook asks for.
    for (group, version, kind, hears) in [
        ("apps", "v1beta1", "Deployment", Hears::Patched),
        ("", "v1", "Deployment", Hears::Unchanged),
        ("extensions", "v1beta1", "Deployment", Hears::Unchanged),
        ("Apps", "v1", "Deployment", Hears::Unchanged),
        ("apps", "v1", "deployment", Hears::Unchanged),
        ("apps", "v1", "Deployments", Hears::Unchanged),
        ("apps", "v1", "ReplicaSet", Hears::Unchanged),
        ("apps", "v1", "", Hears::Unchanged),
        ("apps", "v1", "Pod", Hears::Unchanged),
        ("apps", "v1", "CronJob", Hears::Unchanged),
        ("", "v1", "Secret", Hears::Unchanged),
        ("", "v1", "Namespace", Hears::Unchanged),
        ("autoscaling", "v1", "Scale", Hears::Unchanged),
        ("policy", "v1", "Eviction", Hears::Unchanged),
        ("agenttracing.dev", "v1alpha1", "AgentTracing", Hears::Unchanged),
        ("admission.k8s.io", "v1", "AdmissionReview", Hears::Unchanged),
        ("apps\0", "v1", "Deployment\n", Hears::Unchanged),
        // The object is a Deployment and is read as what the review says.
        ("batch", "v1", "CronJob", Hears::Unchanged),
        ("", "v1", "Pod", Hears::Unchanged),
        ("apps", "v1", "DaemonSet", Hears::Unchanged),
    ] {
        let name = format!("a Deployment as {kind:?} of {group:?} in {version}");
        let kind = json!({"group": group, "version": version, "kind": kind});
        cases.push(with(name, hears, |request| request["kind"] = kind));
    }
    let long = json!({"group": "g".repeat(10_000), "version": "v1", "kind": "k".repeat(10_000)});
    cases.push(with("a kind of 10,000 characters", Hears::Unchanged, |request| request["kind"] = long));
    cases
}

fn operations() -> Vec<Case> {
    let mut cases = Vec::new();
    for (operation, hears) in [
        ("UPDATE", Hears::Patched),
        ("DELETE", Hears::Unchanged),
        ("CONNECT", Hears::Unchanged),
        ("create", Hears::Unchanged),
        ("*", Hears::Unchanged),
        ("", Hears::Unchanged),
    ] {
        cases.push(with(format!("the operation {operation:?}"), hears, |request| {
            request["operation"] = json!(operation)
        }));
    }
    for of in ["status", "scale", "a\nb"] {
        cases.push(with(format!("the subresource {of:?}"), Hears::Unchanged, |request| {
            request["subResource"] = json!(of)
        }));
    }
    cases.push(with("a deletion has only an old object", Hears::Unchanged, |request| {
        request["oldObject"] = request["object"].take();
        request["operation"] = json!("DELETE");
    }));
    cases.push(with("an update without an object", Hears::Unchanged, |request| {
        request["oldObject"] = request["object"].take();
        request["operation"] = json!("UPDATE");
    }));
    cases.push(with("an update of what was a Service", Hears::Patched, |request| {
        request["oldObject"] = json!({"kind": "Service", "spec": {"ports": [1, 2]}});
        request["operation"] = json!("UPDATE");
    }));
    cases
}

fn places() -> Vec<Case> {
    vec![
        with("no namespace", Hears::Unchanged, |request| request["namespace"] = json!("")),
        with("a namespace that nobody labelled", Hears::Unchanged, |request| request["namespace"] = json!("shop")),
        with("the namespace of the system", Hears::Unchanged, |request| request["namespace"] = json!("kube-system")),
        with("a namespace of a mebibyte", Hears::Unchanged, |request| {
            request["namespace"] = json!("n".repeat(1 << 20))
        }),
        with("a namespace that is a path", Hears::Unchanged, |request| request["namespace"] = json!("../bank")),
        with("a namespace with a line feed", Hears::Unchanged, |request| request["namespace"] = json!("bank\n{}")),
        with("an object that says another namespace", Hears::Patched, |request| {
            request["object"]["metadata"]["namespace"] = json!("shop");
        }),
        with("an object whose namespace is a number", Hears::Unchanged, |request| {
            request["object"]["metadata"]["namespace"] = json!(7);
        }),
        with("no name in the review", Hears::Patched, |request| request["name"] = json!("")),
        with("a name of a mebibyte in the review", Hears::Patched, |request| {
            request["name"] = json!("n".repeat(1 << 20))
        }),
        with("no name anywhere", Hears::Patched, |request| {
            request["name"] = json!("");
            request["object"]["metadata"] = json!({});
        }),
        with("a name that is to be generated", Hears::Patched, |request| {
            request["object"]["metadata"] = json!({"generateName": "teller-"});
        }),
        with("a name of dashes that is to be generated", Hears::Patched, |request| {
            request["object"]["metadata"] = json!({"generateName": "-"});
        }),
        with("a name of a mebibyte in the object", Hears::Patched, |request| {
            request["object"]["metadata"]["name"] = json!("n".repeat(1 << 20));
        }),
        with("an object without metadata", Hears::Unchanged, |request| {
            request["object"].as_object_mut().unwrap().remove("metadata");
        }),
        with("an object whose metadata is null", Hears::Unchanged, |request| {
            request["object"]["metadata"] = json!(null)
        }),
    ]
}

fn forms() -> Vec<Case> {
    let remove = |key: &'static str| move |request: &mut Value| drop(request.as_object_mut().unwrap().remove(key));
    let user = |name: &'static str| move |request: &mut Value| request["userInfo"]["username"] = json!(name);
    let operator = "system:serviceaccount:agent-tracing-system:agent-tracing-operator";
    vec![
        with("a dry run", Hears::Patched, |request| request["dryRun"] = json!(true)),
        with("nothing about a dry run", Hears::Patched, remove("dryRun")),
        with("no user", Hears::Patched, remove("userInfo")),
        with("a user without a name", Hears::Patched, user("")),
        with("the operator itself", Hears::Unchanged, user(operator)),
        with(
            "a user who is almost the operator",
            Hears::Patched,
            user("system:serviceaccount:shop:agent-tracing-operator"),
        ),
        with("no operation", Hears::Unchanged, remove("operation")),
        with("no kind", Hears::Unchanged, remove("kind")),
        with("no object", Hears::Unchanged, remove("object")),
        with("no name", Hears::Patched, remove("name")),
        with("no namespace at all", Hears::Unchanged, remove("namespace")),
        with("ten thousand fields that nobody knows", Hears::Patched, |request| {
            (0..10_000).for_each(|n| request[format!("field-{n}")] = json!(n));
        }),
        with("the kind behind the object", Hears::Unchanged, |request| {
            let kind = request.as_object_mut().unwrap().shift_remove("kind").unwrap();
            request["kind"] = kind;
        }),
        Case::new(
            "an answer in place of a question",
            request(
                "",
                json!({
                    "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                    "response": {"uid": super::UID, "allowed": false},
                })
                .to_string(),
            ),
            Hears::Codes(vec![400]),
        ),
        Case::new(
            "a review of v1beta1",
            request("", review().to_string().replacen("io/v1", "io/v1beta1", 1)),
            Hears::Codes(vec![400]),
        ),
        Case::new(
            "a review of another group",
            request("", review().to_string().replacen("admission.k8s.io", "example.com", 1)),
            Hears::Codes(vec![400]),
        ),
        Case::new(
            "a review for conversion",
            request("", review().to_string().replacen("AdmissionReview", "ConversionReview", 1)),
            Hears::Codes(vec![400]),
        ),
    ]
}
