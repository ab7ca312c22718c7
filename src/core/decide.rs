//! The one question: what should this workload's template look like, and which patch brings it there?

use json_patch::PatchOperation;

use super::inject::{InjectionResult, existing_record, inject, uninject};
use super::wiring::{Missing, Subject, wiring};
use crate::api::Reason;
use crate::core::inject::record::RecordError;
use crate::core::inject::view::Workload;
use crate::core::selection::kind::Kind;
use crate::core::selection::{NotSelected, Selection, SelectionContext, select};
use crate::names;

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The template should carry the wiring of the named AgentTracing; an empty patch means that it does.
    Wire {
        /// The AgentTracing.
        tracing: String,
        /// The experiment's name.
        experiment: String,
        /// Patch, hash and notes.
        injection: InjectionResult,
    },
    /// The template carries our wiring and the user opted out: this patch takes it out.
    Unwire(Vec<PatchOperation>),
    /// Nothing is changed.
    Leave(Leave),
}

/// Why nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// No AgentTracing applies.
    NotSelected(NotSelected),
    /// The AgentTracing that applies is suspended.
    Suspended {
        /// The AgentTracing.
        tracing: String,
    },
    /// A fact is missing: MLflow has not answered yet. Existing wiring stays.
    Blocked {
        /// The AgentTracing.
        tracing: String,
        /// What is missing.
        missing: Missing,
    },
    /// The record on the template cannot be used.
    Record {
        /// The AgentTracing; empty where the workload opted out and none was asked for.
        tracing: String,
        /// Why.
        error: RecordError,
    },
}

/// Decides about a workload.
pub fn decide(workload: &Workload<'_>, context: &SelectionContext<'_>) -> Decision {
    let policy = match select(workload, context) {
        Selection::One(policy) => policy,
        Selection::None(NotSelected::OptedOut) => return opted_out(workload),
        Selection::None(why) => return Decision::Leave(Leave::NotSelected(why)),
    };
    let (settings, facts) = (&policy.settings, &policy.facts);
    let tracing = settings.name.clone();
    if settings.suspend {
        return Decision::Leave(Leave::Suspended { tracing });
    }
    let annotation = workload.annotation(names::ANNOTATION_EXPERIMENT);
    // A Pod is wired once, by its owner's template or by us. Judged again it would look edited: the API server adds tokens
    // and security contexts to our containers, too, and its owner's name need not be the one that the template got.
    if let (Kind::Pod, Ok(Some(record))) = (workload.kind, existing_record(workload)) {
        let injection = InjectionResult { hash: record.hash, was_wired: true, ..InjectionResult::default() };
        return Decision::Wire {
            tracing,
            experiment: settings.experiment_of(workload.experiments_name(), annotation),
            injection,
        };
    }
    let account = workload.service_account();
    let token = settings.agents_need_token().then(|| !context.tokenless.contains(account));
    if token.is_some_and(|automounts| !workload.has_token(automounts)) {
        return match uninject(workload) {
            Ok(patch) => {
                let skipped = Some(Reason::NoServiceAccountToken);
                let injection = InjectionResult { patch, skipped, ..InjectionResult::default() };
                Decision::Wire {
                    tracing,
                    experiment: settings.experiment_of(workload.experiments_name(), annotation),
                    injection,
                }
            }
            Err(error) => Decision::Leave(Leave::Record { tracing, error }),
        };
    }
    let waits = workload.kind.template_is_mutable();
    if waits && facts.bound.as_ref().is_some_and(|bound| !bound.contains(account)) {
        return Decision::Leave(Leave::Blocked { tracing, missing: Missing::Binding });
    }
    let subject = Subject {
        kind: workload.kind,
        name: workload.experiments_name(),
        experiment: annotation,
        // Of the pods: one on the workload alone changes without them, and would roll them.
        version: workload.template_label(names::LABEL_VERSION),
    };
    let mut wiring = match wiring(policy, &subject) {
        Ok(wiring) => wiring,
        Err(missing) => return Decision::Leave(Leave::Blocked { tracing, missing }),
    };
    wiring.token = token;
    wiring.renews = context.renews;
    wiring.parts = std::mem::take(&mut wiring.parts)
        .into_iter()
        .filter_map(|part| part.or_fallback(workload, policy, context.platform))
        .collect();
    match inject(workload, &wiring, &settings.containers, context.platform) {
        Ok(injection) => Decision::Wire { tracing, experiment: wiring.experiment, injection },
        Err(error) => Decision::Leave(Leave::Record { tracing, error }),
    }
}

fn opted_out(workload: &Workload<'_>) -> Decision {
    match uninject(workload) {
        Ok(patch) if patch.is_empty() => Decision::Leave(Leave::NotSelected(NotSelected::OptedOut)),
        Ok(patch) => Decision::Unwire(patch),
        Err(error) => Decision::Leave(Leave::Record { tracing: String::new(), error }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::api::AgentTracing;
    use crate::core::settings::Platform;
    use crate::core::settings::policy::Policy;

    fn policy(spec: &str, status: &str) -> Policy {
        let yaml = format!(
            "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\n\
             metadata: {{name: tracing, namespace: bank-agents}}\nspec: {spec}\nstatus: {status}"
        );
        Policy::of(&serde_yaml::from_str::<AgentTracing>(&yaml).unwrap())
    }

    fn decided(kind: Kind, policy: Policy) -> Decision {
        let labels = json!({"agenttracing.dev/inject": "true"});
        let pod = json!({"containers": [{"name": "agent"}]});
        let spec: Value = match kind {
            Kind::Pod => pod,
            Kind::CronJob => json!({"jobTemplate": {"spec": {"template": {"spec": pod}}}}),
            _ => json!({"template": {"spec": pod}}),
        };
        let object = json!({"metadata": {"name": "teller", "labels": labels}, "spec": spec}).to_string();
        let context = SelectionContext {
            namespace: "bank-agents",
            injection_enabled: true,
            platform: &Platform::default(),
            tokenless: &BTreeSet::new(),
            policies: &[policy],
            renews: false,
        };
        decide(&Workload::parse(kind, &object).unwrap(), &context)
    }

    fn value_of(decision: &Decision, variable: &str) -> Option<String> {
        let Decision::Wire { injection, .. } = decision else { return None };
        let patch = serde_json::to_value(&injection.patch).unwrap();
        let entries = patch.as_array().unwrap().iter().flat_map(|op| op["value"].as_array().into_iter().flatten());
        entries.into_iter().find(|e| e["name"] == variable).map(|e| e["value"].as_str().unwrap().to_owned())
    }

    const ANSWERED: &str =
        "{mlflow: {url: 'https://mlflow.example.com', version: 3.10.1, workspaces: true, source: Spec}}";

    #[test]
    fn what_has_no_second_chance_is_wired_before_mlflow_has_answered_where_the_address_is_known() {
        let external = "{mlflow: {mode: External, external: {trackingURI: 'http://mlflow.example.com/'}}}";
        let standalone = "{mlflow: {mode: Standalone, standalone: {port: 5600}}}";
        for kind in Kind::ALL {
            for (spec, address) in [
                (standalone, Some("http://tracing-mlflow.bank-agents.svc:5600")),
                (external, Some("http://mlflow.example.com")),
                ("{mlflow: {mode: CR, cr: {url: 'https://mlflow.example.com'}}}", None),
            ] {
                let decision = decided(kind, policy(spec, "{}"));
                match address.filter(|_| !kind.template_is_mutable()) {
                    Some(address) => assert_eq!(value_of(&decision, "MLFLOW_TRACKING_URI").as_deref(), Some(address)),
                    None => {
                        assert!(matches!(decision, Decision::Leave(Leave::Blocked { .. })), "{kind:?} {decision:?}")
                    }
                }
            }
        }
    }

    #[test]
    fn what_has_no_second_chance_waits_for_no_binding() {
        for kind in Kind::ALL {
            let decision = decided(kind, policy("{mlflow: {mode: CR}}", ANSWERED));
            let waiting = Leave::Blocked { tracing: "tracing".into(), missing: Missing::Binding };
            match kind.template_is_mutable() {
                true => assert_eq!(decision, Decision::Leave(waiting)),
                false => assert_eq!(value_of(&decision, "MLFLOW_WORKSPACE").as_deref(), Some("bank-agents")),
            }
        }
    }

    #[test]
    fn what_has_no_second_chance_goes_by_the_experiments_name_where_its_id_is_not_known() {
        let pinned = "{mlflow: {mode: External, external: {trackingURI: 'https://x'}}, experiment: {pin: true}}";
        for kind in Kind::ALL {
            let decision = decided(kind, policy(pinned, ANSWERED));
            match kind.template_is_mutable() {
                true => assert!(matches!(decision, Decision::Leave(Leave::Blocked { .. })), "{decision:?}"),
                false => {
                    assert_eq!(value_of(&decision, "MLFLOW_EXPERIMENT_NAME").as_deref(), Some("teller"));
                    assert_eq!(value_of(&decision, "MLFLOW_TRACING_DESTINATION"), None);
                }
            }
        }
    }
}
