//! What is created dry to learn whether the cluster admits the init container `merge-ca` in a namespace, and what the answers
//! mean. Policies look at Pods, at workloads, or at both, so both are made of the same template: once without the init
//! container and once with it. Only the difference is ours.

use serde_json::{Value, json};

use super::inject::{Pieces, merge_ca_pieces};
use super::kind::Kind;
use super::policy::CaChoice;
use super::settings::Platform;
use super::view::Workload;
use crate::names;

/// What the API server said to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It would take it.
    Admitted,
    /// It would not, and why.
    Refused(String),
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

/// The template of a workload that has no init container of ours, and what it would be; with none at hand, of an agent of the
/// same image. `None` where the template cannot be read or has no container.
pub fn to_be_wired(template: Option<Value>, choice: &CaChoice, platform: &Platform) -> Option<Templates> {
    let agent = || json!({"spec": {"containers": [{"name": "agent", "image": platform.merge_ca.image}]}});
    let without = template.unwrap_or_else(agent);
    let object = deployment(&without).to_string();
    let workload = Workload::parse(Kind::Deployment, &object).ok()?;
    let Pieces { volumes, init_containers, image_pull_secrets, agent: _ } =
        merge_ca_pieces(&workload, choice, platform)?;
    let mut with = without.clone();
    let spec = with.get_mut("spec")?.as_object_mut()?;
    for (list, pieces) in
        [("volumes", volumes), ("initContainers", init_containers), ("imagePullSecrets", image_pull_secrets)]
    {
        let found = spec.entry(list).or_insert_with(|| json!([]));
        if found.is_null() {
            *found = json!([]);
        }
        found.as_array_mut()?.extend(pieces.into_iter().map(|piece| piece.value));
    }
    Some(Templates { without, with })
}

/// A template that has the init container, and what it was without; `None` where it has none.
pub fn wired(with: Value) -> Option<Templates> {
    let mut without = with.clone();
    let containers = without.pointer_mut("/spec/initContainers")?.as_array_mut()?;
    let before = containers.len();
    containers.retain(|container| container["name"] != names::MERGE_CA);
    (containers.len() < before).then_some(Templates { without, with })
}

/// The pod of a template. The label keeps the operator's own webhook from wiring it.
pub fn pod(template: &Value) -> Value {
    let mut metadata = marked(&template["metadata"]);
    metadata["generateName"] = json!(format!("{}-", names::CANARY));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// A Deployment of a template.
pub fn deployment(template: &Value) -> Value {
    let mut template = json!({"metadata": marked(&template["metadata"]), "spec": template["spec"]});
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
fn marked(metadata: &Value) -> Value {
    let mut labels = metadata["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(names::LABEL_INJECT.to_owned(), json!("false"));
    let mut marked = json!({"labels": labels});
    if let Some(annotations) = metadata["annotations"].as_object() {
        marked["annotations"] = json!(annotations);
    }
    marked
}

/// What the answers to the same object without and with the init container mean for it. Where the object is refused either way,
/// only words about the init container count: the policy may want something else of it.
pub fn verdict(without: &Answer, with: &Answer, image: &str) -> Answer {
    let Answer::Refused(said) = with else { return with.clone() };
    let names_it = [names::MERGE_CA, image, "initContainers"].iter().any(|word| said.contains(word));
    match without {
        Answer::Admitted => with.clone(),
        Answer::Refused(_) if names_it => with.clone(),
        Answer::Refused(_) | Answer::Unclear => Answer::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CaBundleScope, CaBundleStrategy};

    fn choice() -> CaChoice {
        CaChoice { strategy: CaBundleStrategy::InitContainer, scope: CaBundleScope::All, config_maps: Vec::new() }
    }

    fn refused(said: &str) -> Answer {
        Answer::Refused(said.to_owned())
    }

    /// Cases B05, B06: whatever refuses the agent itself says nothing about the init container.
    #[test]
    fn only_what_refuses_the_init_container_counts() {
        use Answer::{Admitted, Unclear};
        let image = "r.example/operator:1";
        let by_name = refused("image r.example/operator:1 is not from an allowed registry");
        let quota = refused("exceeded quota: tight, requested: pods=1");
        for (without, with, wanted) in [
            (Admitted, Admitted, Admitted),
            (quota.clone(), Admitted, Admitted),
            (Admitted, quota.clone(), quota.clone()),
            (Admitted, by_name.clone(), by_name.clone()),
            (quota.clone(), quota.clone(), Unclear),
            (quota.clone(), by_name.clone(), by_name.clone()),
            (by_name.clone(), refused("label team is missing"), Unclear),
            (Unclear, by_name.clone(), Unclear),
            (Admitted, Unclear, Unclear),
        ] {
            assert_eq!(verdict(&without, &with, image), wanted, "{without:?} {with:?}");
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
        let Templates { without, with } = to_be_wired(Some(template.clone()), &choice(), &platform).unwrap();
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
    fn without_a_workload_the_agent_is_of_the_same_image() {
        let templates = to_be_wired(None, &choice(), &Platform::default()).unwrap();
        assert_eq!(templates.without["spec"]["containers"][0]["image"], Platform::default().merge_ca.image);
        assert_eq!(to_be_wired(Some(json!({"spec": {"containers": []}})), &choice(), &Platform::default()), None);
    }
}
