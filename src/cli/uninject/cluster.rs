//! `uninject --all`: takes the wiring out of every workload of a cluster, a few at a time, once no operator puts it back.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};

use crate::controller;
use crate::core::kubectl::Kubectl;
use crate::names;

/// Whose wiring is taken out, and how fast.
#[derive(Args)]
pub struct UninjectAllArgs {
    /// The operator's namespace, in which its lease tells whether it runs.
    #[arg(long, default_value = names::OPERATOR_NAMESPACE)]
    pub operator_namespace: String,
    /// Most workloads that are unavailable at a time because of it.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_concurrent: u16,
}

/// Takes everything out; exit code 1 names what the API server would not have.
pub async fn all(args: UninjectAllArgs) -> anyhow::Result<ExitCode> {
    let UninjectAllArgs { operator_namespace, max_concurrent } = args;
    let client = Client::try_default().await.context("no cluster: set KUBECONFIG, or run this in a pod")?;
    if let Some(holder) = leader(&client, &operator_namespace).await? {
        let end = Kubectl::new("scale").namespace(&operator_namespace);
        let end = end.arg(&format!("deployment/{}", names::MANAGED_BY)).arg("--replicas=0");
        bail!("the operator ({holder}) runs and would wire everything again; end it first: {end}");
    }
    let failures = remove_all_wiring(&client, max_concurrent).await?;
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Takes the wiring out of every workload and tells of each; how many the API server would not have.
pub(crate) async fn remove_all_wiring(client: &Client, max_concurrent: u16) -> anyhow::Result<usize> {
    let (mut done, mut failures) = (0, 0);
    let tell = |workload: &str, message: Option<&str>| match message {
        None => {
            done += 1;
            println!("{workload}  wiring taken out");
        }
        Some(message) => {
            failures += 1;
            eprintln!("{workload}  left as it is: the API server says {message}");
        }
    };
    controller::uninject_all(client, max_concurrent.into(), tell).await?;
    println!("{done} workloads are what they were; left: {failures}");
    Ok(failures)
}

/// Who holds the operator's lease, unless it has expired.
pub(crate) async fn leader(client: &Client, namespace: &str) -> anyhow::Result<Option<String>> {
    let lease = Api::<Lease>::namespaced(client.clone(), namespace).get_opt(names::LEASE).await;
    let Some(spec) = lease.context("failed to read the operator's lease")?.and_then(|lease| lease.spec) else {
        return Ok(None);
    };
    let seconds = i64::from(spec.lease_duration_seconds.unwrap_or_default());
    let runs = spec.renew_time.is_some_and(|renewed| renewed.0.as_second() + seconds > Timestamp::now().as_second());
    Ok(spec.holder_identity.filter(|holder| runs && !holder.is_empty()))
}
