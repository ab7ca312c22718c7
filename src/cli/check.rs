//! `check`: gathers what [`core::check`](crate::core::check) walks along, with the rights of whoever asks, and prints the links.

mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Config};
use serde_json::json;

use crate::api::AgentTracing;
use crate::core::check::{Fact, Facts, Link, OperatorFacts, State, WebhookFacts, check as walk, exit_code};
use crate::core::decide::{Decision, decide};
use crate::core::inject::view::Workload;
use crate::core::selection::SelectionContext;
use crate::core::selection::kind::Kind;
use crate::core::settings::Platform;
use crate::core::settings::policy::Policy;
use crate::names;

/// What is looked at.
#[derive(Args)]
pub struct CheckArgs {
    /// The namespace of the agents. Default: that of the current context.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Only this workload, for example `deploy/teller`.
    #[arg(long, value_parser = workload)]
    pub workload: Option<String>,
    /// What to print.
    #[arg(short, long, default_value = "text")]
    pub output: CheckOutput,
}

/// Forms in which the links are printed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CheckOutput {
    /// One line a link.
    Text,
    /// JSON.
    Json,
}

/// Looks and prints. Exit code 0: every link holds; 1: one is broken; 2: one could not be looked at.
pub async fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let CheckArgs { namespace, workload, output } = args;
    let config = Config::infer().await.context("no cluster: set KUBECONFIG, or run this in a pod")?;
    let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
    let facts = gather(&Client::try_from(config)?, namespace, workload).await;
    let links = walk(&facts, Timestamp::now());
    match output {
        CheckOutput::Text => print!("{}", text(&links, std::io::stdout().is_terminal())),
        CheckOutput::Json => println!("{}", serde_json::to_string_pretty(&links)?),
    }
    Ok(ExitCode::from(exit_code(&links)))
}

async fn gather(client: &Client, namespace: String, workload: Option<String>) -> Facts {
    let (definition, tracings) = tracings(client, &namespace).await;
    let operator = operator(client).await;
    let home = match &operator {
        Fact::Known(Some(operator)) => operator.namespace.clone(),
        _ => names::OPERATOR_NAMESPACE.to_owned(),
    };
    let labels = fact(Api::<Namespace>::all(client.clone()).get_metadata_opt(&namespace).await, |found| {
        found.map(|namespace| namespace.metadata.labels.unwrap_or_default())
    });
    let webhooks = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let webhook = fact(webhooks.get_opt(names::WEBHOOK_CONFIGURATION).await, |found| {
        let entries = found.map(|found| found.webhooks.unwrap_or_default());
        let bundle = |entry: &k8s_openapi::api::admissionregistration::v1::MutatingWebhook| {
            entry.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.clone()).unwrap_or_default()
        };
        entries.map(|entries| WebhookFacts { bundles: entries.iter().map(bundle).collect() })
    });
    let known = |tracings: &Fact<Vec<AgentTracing>>| match tracings {
        Fact::Known(tracings) => tracings.clone(),
        Fact::Unknown(_) => Vec::new(),
    };
    let (pods, authorities) = pods::look(client, &namespace, &known(&tracings), workload.as_deref()).await;
    Facts {
        leader: leader(client, &home).await,
        probe: probe(client, &namespace, &labels, &known(&tracings), &home).await,
        pods,
        authorities,
        namespace,
        workload,
        definition,
        operator,
        webhook,
        labels,
        tracings,
    }
}

fn fact<T, U>(found: Result<T, kube::Error>, known: impl FnOnce(T) -> U) -> Fact<U> {
    match found {
        Ok(found) => Fact::Known(known(found)),
        Err(error) => Fact::Unknown(api_error(&error)),
    }
}

fn api_error(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

async fn tracings(client: &Client, namespace: &str) -> (Fact<bool>, Fact<Vec<AgentTracing>>) {
    match Api::<AgentTracing>::namespaced(client.clone(), namespace).list(&ListParams::default()).await {
        Ok(list) => (Fact::Known(true), Fact::Known(list.items)),
        Err(kube::Error::Api(status)) if status.code == 404 => (Fact::Known(false), Fact::Known(Vec::new())),
        Err(error) => (Fact::Unknown(api_error(&error)), Fact::Unknown(api_error(&error))),
    }
}

async fn operator(client: &Client) -> Fact<Option<OperatorFacts>> {
    let labels = format!("{}={}", names::LABEL_NAME, names::MANAGED_BY);
    let found = Api::<Deployment>::all(client.clone()).list(&ListParams::default().labels(&labels)).await;
    fact(found, |list| {
        let deployment = list.items.into_iter().next()?;
        let ready = deployment.status.and_then(|status| status.ready_replicas).unwrap_or_default();
        Some(OperatorFacts { namespace: deployment.metadata.namespace.unwrap_or_default(), ready })
    })
}

async fn leader(client: &Client, namespace: &str) -> Fact<Option<Timestamp>> {
    let found = Api::<Lease>::namespaced(client.clone(), namespace).get_opt(names::LEASE).await;
    fact(found, |lease| {
        let spec = lease?.spec?;
        spec.holder_identity.filter(|holder| !holder.is_empty())?;
        let lasts = jiff::SignedDuration::from_secs(spec.lease_duration_seconds?.into());
        spec.renew_time?.0.checked_add(lasts).ok()
    })
}

/// Sends a workload that nobody stores. What it should come back with is decided here, as the webhook does it.
async fn probe(
    client: &Client,
    namespace: &str,
    labels: &Fact<Option<BTreeMap<String, String>>>,
    tracings: &[AgentTracing],
    operator_namespace: &str,
) -> Fact<Option<bool>> {
    let Fact::Known(Some(labels)) = labels else { return Fact::Known(None) };
    let app = json!({"app": PROBE});
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": PROBE, "namespace": namespace, "labels": {(names::LABEL_INJECT): "true"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": app},
            "template": {"metadata": {"labels": app}, "spec": {"containers": [{"name": "agent", "image": PROBE}]}},
        },
    });
    let policies: Vec<Policy> = tracings.iter().map(Policy::of).collect();
    let context = SelectionContext {
        namespace,
        injection_enabled: labels.get(names::LABEL_INJECTION).is_some_and(|value| value == names::ENABLED),
        platform: &Platform { operator_namespace: operator_namespace.to_owned(), ..Platform::default() },
        tokenless: &BTreeSet::new(),
        policies: &policies,
        renews: false,
    };
    let decision = Workload::read(Kind::Deployment, &object).map(|workload| decide(&workload, &context));
    if !matches!(decision, Ok(Decision::Wire { injection, .. }) if injection.skipped.is_none()) {
        return Fact::Known(None);
    }
    let Ok(deployment) = serde_json::from_value::<Deployment>(object) else { return Fact::Known(None) };
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let answer = Api::<Deployment>::namespaced(client.clone(), namespace).create(&dry, &deployment).await;
    fact(answer, |answer| {
        let template = answer.spec.template.metadata.and_then(|metadata| metadata.annotations);
        Some(template.is_some_and(|annotations| annotations.contains_key(names::ANNOTATION_RECORD)))
    })
}

const PROBE: &str = "agent-tracing-check";

fn text(links: &[Link], colour: bool) -> String {
    let shown = || links.iter().filter(|link| link.state != State::Skipped);
    let width = shown().map(|link| link.link.chars().count()).max().unwrap_or_default();
    let line = |link: &Link| {
        let (sign, code) = match link.state {
            State::Good => ("✓", 32),
            State::Bad => ("✗", 31),
            State::Unknown | State::Skipped => ("?", 33),
        };
        let sign = if colour { format!("\u{1b}[{code}m{sign}\u{1b}[0m") } else { sign.to_owned() };
        format!("{sign} {:width$}  {}\n", link.link, link.message)
    };
    let lines: String = shown().map(line).collect();
    match links.len() - shown().count() {
        0 => lines,
        skipped => format!("{lines}– {skipped} more links stand behind the broken one and are not looked at\n"),
    }
}

/// A workload as kubectl takes it, with the short names of kinds.
fn workload(text: &str) -> Result<String, String> {
    let (kind, name) = text.split_once('/').ok_or("give kind and name, for example deploy/teller")?;
    let kind = match kind.to_ascii_lowercase().as_str() {
        "deploy" | "deployment" | "deployments" => Kind::Deployment,
        "sts" | "statefulset" | "statefulsets" => Kind::StatefulSet,
        "ds" | "daemonset" | "daemonsets" => Kind::DaemonSet,
        "cj" | "cronjob" | "cronjobs" => Kind::CronJob,
        "job" | "jobs" => Kind::Job,
        other => return Err(format!("\"{other}\" is no kind that is wired; there are deploy, sts, ds, cj and job")),
    };
    Ok(format!("{}/{name}", kind.as_str().to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_of_kinds_are_understood_and_others_are_named() {
        assert_eq!(workload("deploy/teller").unwrap(), "deployment/teller");
        assert_eq!(workload("StatefulSet/ledger").unwrap(), "statefulset/ledger");
        assert!(workload("pod/x").unwrap_err().contains("\"pod\""));
        assert!(workload("teller").is_err());
    }

    #[test]
    fn the_table_is_aligned_and_coloured_only_on_a_terminal() {
        let link = |link: &str, state| Link { link: link.into(), state, message: "as it is".into() };
        let links = [link("a", State::Good), link("longer", State::Bad), link("b", State::Skipped)];
        let behind = "– 1 more links stand behind the broken one and are not looked at\n";
        assert_eq!(text(&links, false), format!("✓ a       as it is\n✗ longer  as it is\n{behind}"));
        assert!(text(&links, true).starts_with("\u{1b}[32m✓\u{1b}[0m a"));
    }
}
