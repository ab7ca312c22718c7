//! What is created dry to learn whether the cluster admits the init containers of a part in a namespace, and what the answers
//! mean. Policies look at Pods, at workloads, or at both, so both are made of the same template: once without the init
//! container and once with it. Only the difference is ours.

use serde_json::{Value, json};

use super::view::Workload;
use crate::core::inject::entries::{ManagedEntries, entries_of_first};
use crate::core::inject::uninject;
use crate::core::selection::kind::Kind;
use crate::core::settings::Platform;
use crate::core::wiring::parts::{PodPart, container_kinds};
use crate::names;

/// What the API server said to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It would take it.
    Admitted,
    /// It would not, and why.
    Refused(String),
    /// It would not, and no more without the init container.
    RefusedAnyway(String),
    /// It could not be asked.
    Unclear,
}

/// A pod template without the init container, and with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Templates {
    /// Without.
    pub without: Value,
    /// With.
    pub with: Value,
}

/// The pod template of a workload as a pod by itself may have it: what a StatefulSet claims for each pod is an empty folder.
pub fn template(kind: Kind, mut object: Value) -> Option<Value> {
    let claims = object.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array).into_iter().flatten();
    let claimed: Vec<_> = claims.map(|claim| json!({"name": claim["metadata"]["name"], "emptyDir": {}})).collect();
    let path: String = kind.template().iter().map(|part| format!("/{part}")).collect();
    let mut template = object.pointer_mut(&path)?.take();
    if !claimed.is_empty() {
        list(&mut template, "volumes")?.extend(claimed);
    }
    Some(template)
}

/// The same without our wiring.
pub fn bare_template(kind: Kind, mut object: Value) -> Option<Value> {
    let removal = uninject(&Workload::read(kind, &object).ok()?).ok()?;
    json_patch::patch(&mut object, &removal).ok()?;
    template(kind, object)
}

/// The template of an agent that no policy has a reason to refuse but for where its image, that of the init container, is from.
pub fn stand_in(platform: &Platform) -> Value {
    json!({"spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "agent",
            "image": platform.merge_ca.image,
            "resources": {
                "requests": {"cpu": "100m", "memory": "128Mi"},
                "limits": {"cpu": "100m", "memory": "128Mi"},
            },
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }],
    }})
}

/// A list of a pod's, made where there is none.
fn list<'a>(template: &'a mut Value, name: &str) -> Option<&'a mut Vec<Value>> {
    let found = template.get_mut("spec")?.as_object_mut()?.entry(name).or_insert_with(|| json!([]));
    if found.is_null() {
        *found = json!([]);
    }
    found.as_array_mut()
}

/// A template that has no init container of ours, and what it would be. `None` where it cannot be read or has no container.
pub fn to_be_wired(without: Value, part: &PodPart, platform: &Platform) -> Option<Templates> {
    let object = deployment(&without).to_string();
    let workload = Workload::parse(Kind::Deployment, &object).ok()?;
    let ManagedEntries { volumes, init_containers, image_pull_secrets, agent: _ } =
        entries_of_first(&workload, &[part], platform)?;
    let mut with = without.clone();
    for (name, managed_entries) in
        [("volumes", volumes), ("initContainers", init_containers), ("imagePullSecrets", image_pull_secrets)]
    {
        list(&mut with, name)?.extend(managed_entries.into_iter().map(|managed| managed.value));
    }
    Some(Templates { without, with })
}

/// A template that has the init container, and what it was without; `None` where it has none.
pub fn wired(with: Value) -> Option<Templates> {
    let mut without = with.clone();
    let containers = without.pointer_mut("/spec/initContainers")?.as_array_mut()?;
    let before = containers.len();
    containers.retain(|container| container_kinds().all(|kind| container["name"] != kind.name));
    (containers.len() < before).then_some(Templates { without, with })
}

/// The pod of a template. The label keeps the operator's own webhook from wiring it.
pub fn pod(template: &Value) -> Value {
    let mut metadata = as_canary(&template["metadata"]);
    metadata["generateName"] = json!(format!("{}-", names::CANARY));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// A Deployment of a template.
pub fn deployment(template: &Value) -> Value {
    let mut template = json!({"metadata": as_canary(&template["metadata"]), "spec": template["spec"]});
    let labels = template["metadata"]["labels"].clone();
    if let Some(spec) = template["spec"].as_object_mut() {
        // A Job's pods have another one, which a Deployment may not.
        spec.remove("restartPolicy");
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"generateName": format!("{}-", names::CANARY), "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    })
}

/// Labels and annotations of a template, opted out.
fn as_canary(metadata: &Value) -> Value {
    let mut labels = metadata["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(names::LABEL_INJECT.to_owned(), json!("false"));
    let mut as_canary = json!({"labels": labels});
    if let Some(annotations) = metadata["annotations"].as_object() {
        as_canary["annotations"] = json!(annotations);
    }
    as_canary
}

/// What the API server says of such an object, without the name that it made: that is another one each time.
pub fn without_generated_names(message: &str) -> String {
    let made = format!("{}-", names::CANARY);
    let mut parts = message.split(&made);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(names::CANARY);
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_alphanumeric()));
    }
    out
}

/// What the answers to the same object without and with the init container mean for it. Where the object is refused either way,
/// only what is said of the init container alone counts: the policy may want something else of it.
pub fn compare_dry_runs(without: &Answer, with: &Answer, image: &str) -> Answer {
    let Answer::Refused(message) = with else { return with.clone() };
    match without {
        Answer::Admitted => with.clone(),
        Answer::Refused(before) if is_about_ours(message, before, image) => with.clone(),
        Answer::Refused(_) | Answer::RefusedAnyway(_) => Answer::RefusedAnyway(message.clone()),
        Answer::Unclear => Answer::Unclear,
    }
}

/// Whether a refusal is about the init container. A quota's lists the containers that lack something, ours beside the agent.
fn is_about_ours(message: &str, before: &str, image: &str) -> bool {
    let mut words = vec![image];
    words.extend(container_kinds().map(|kind| kind.name));
    words.push("initContainers");
    let names_it = |text: &str| words.iter().any(|word| text.contains(word));
    let rest = |text: &str| {
        let text = words.iter().fold(text.to_owned(), |text, word| text.replace(word, ""));
        text.chars().filter(|c| c.is_alphanumeric()).collect::<String>()
    };
    names_it(message) && !names_it(before) && rest(message) != rest(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CaBundleScope, CaBundleStrategy};
    use crate::core::settings::policy::CaChoice;
    use crate::core::wiring::parts::authorities;

    fn part() -> PodPart {
        let strategy = CaBundleStrategy::InitContainer;
        authorities::part(&CaChoice { strategy, scope: CaBundleScope::All, config_maps: Vec::new() })
    }

    fn refused(message: &str) -> Answer {
        Answer::Refused(message.to_owned())
    }

    /// Cases B05, B06: whatever refuses the agent itself says nothing about the init container.
    #[test]
    fn only_what_refuses_the_init_container_counts() {
        use Answer::{Admitted, Unclear};
        let image = "r.example/operator:1";
        let anyway = |answer: &Answer| match answer {
            Answer::Refused(message) => Answer::RefusedAnyway(message.clone()),
            other => panic!("{other:?}"),
        };
        let limits = |of: &str| refused(&format!("failed quota: q: must specify limits.cpu for: {of}"));
        let no_volume = refused("spec.initContainers[0].volumeMounts[0].name: Not found: \"data\"");
        let team = refused("label team is missing");
        let by_name = refused("image r.example/operator:1 is not from an allowed registry");
        let quota = refused("exceeded quota: tight, requested: pods=1");
        for (without, with, wanted) in [
            (Admitted, Admitted, Admitted),
            (quota.clone(), Admitted, Admitted),
            (Admitted, quota.clone(), quota.clone()),
            (Admitted, by_name.clone(), by_name.clone()),
            (quota.clone(), quota.clone(), anyway(&quota)),
            (limits("agent"), limits("agent,merge-ca"), anyway(&limits("agent,merge-ca"))),
            (no_volume.clone(), no_volume.clone(), anyway(&no_volume)),
            (quota.clone(), by_name.clone(), by_name.clone()),
            (by_name.clone(), team.clone(), anyway(&team)),
            (by_name.clone(), by_name.clone(), anyway(&by_name)),
            (Unclear, by_name.clone(), Unclear),
            (Admitted, Unclear, Unclear),
        ] {
            assert_eq!(compare_dry_runs(&without, &with, image), wanted, "{without:?} {with:?}");
        }
    }

    #[test]
    fn the_two_templates_differ_by_the_init_container_and_its_volumes() {
        let platform = Platform::default();
        let resources = json!({"limits": {"memory": "64Mi"}});
        let template = json!({
            "metadata": {"labels": {"app": "teller"}},
            "spec": {"containers": [{"name": "a", "image": "bank/teller:1", "resources": resources}], "restartPolicy": "Never"},
        });
        let Templates { without, with } = to_be_wired(template.clone(), &part(), &platform).unwrap();
        assert_eq!(without, template);
        let merge_ca = &with["spec"]["initContainers"][0];
        assert_eq!((&merge_ca["image"], &merge_ca["resources"]), (&json!(platform.merge_ca.image), &resources));
        assert_eq!(with["spec"]["containers"], template["spec"]["containers"]);
        assert_eq!(wired(with.clone()).unwrap().with, with);
        assert_eq!(wired(template), None, "it has none");
        let deployment = deployment(&with);
        assert_eq!(deployment["spec"]["template"]["spec"].get("restartPolicy"), None);
        assert_eq!(deployment["spec"]["selector"]["matchLabels"]["app"], "teller");
        let pod = pod(&with);
        assert_eq!(pod["metadata"]["labels"]["agenttracing.dev/inject"], "false");
        assert_eq!(pod["spec"]["restartPolicy"], "Never");
    }

    #[test]
    fn without_a_workload_an_agent_of_the_same_image_stands_in() {
        let platform = Platform::default();
        let templates = to_be_wired(stand_in(&platform), &part(), &platform).unwrap();
        assert_eq!(templates.without["spec"]["containers"][0]["image"], platform.merge_ca.image);
        assert_eq!(to_be_wired(json!({"spec": {"containers": []}}), &part(), &platform), None);
    }

    #[test]
    fn what_a_stateful_set_claims_is_a_folder_of_the_pod() {
        let claims = json!([{"metadata": {"name": "data"}, "spec": {}}]);
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "i"}], "volumes": null}});
        let object = json!({
            "metadata": {"name": "ledger"},
            "spec": {"selector": {}, "template": pod, "volumeClaimTemplates": claims},
        });
        let folder = json!([{"name": "data", "emptyDir": {}}]);
        assert_eq!(template(Kind::StatefulSet, object.clone()).unwrap()["spec"]["volumes"], folder);
        assert_eq!(bare_template(Kind::StatefulSet, object).unwrap()["spec"]["volumes"], folder);
    }

    #[test]
    fn a_refusal_says_the_same_each_time() {
        let message = "pods \"agenttracing-canary-x7k2p\" is forbidden: agenttracing-canary-x7k2p is not ours";
        let plain = "pods \"agenttracing-canary\" is forbidden: agenttracing-canary is not ours";
        assert_eq!(without_generated_names(message), plain);
        assert_eq!(without_generated_names("no name"), "no name");
    }
}
