//! What is said of traces that wait in the relay, and of a relay that MLflow refuses or whose spool is full.

use serde_json::json;

use super::super::{TracingRef, count};
use crate::api::MlflowMode;
use crate::core::kubectl::Kubectl;
use crate::core::relay::cause::Cause;
use crate::core::relay::report::Held;
use crate::names;

/// Traces wait: since when, how many, of whom, why, and what to do about it.
pub(in crate::core::status) fn traces_held(tracing_ref: &TracingRef<'_>, held: &Held) -> String {
    let Held { cause, since, requests, senders, others } = held;
    let named = |(sender, count): &(String, u64)| format!("{sender} ({count})");
    let named: Vec<_> = senders.iter().map(named).collect();
    let more = match others {
        0 => String::new(),
        others => format!(" and {}", count(*others, "more workload")),
    };
    let requests = count(usize::try_from(*requests).unwrap_or(usize::MAX), "request");
    format!(
        "Traces wait in the relay since {since}, at least {requests} of {}{more}: {} ({}). They are sent when MLflow takes them; {}",
        named.join(", "),
        why(*cause),
        cause.as_str(),
        remedy(tracing_ref, *cause)
    )
}

/// The spool is so full that it has to be told.
pub(in crate::core::status) fn spool_full(tracing_ref: &TracingRef<'_>, percent: u8, held: Option<&Held>) -> String {
    let cause = held.map_or_else(
        || format!("condition MLflowReady says how MLflow is: {}", tracing_ref.command("describe")),
        |held| format!("{} ({}); {}", why(held.cause), held.cause.as_str(), remedy(tracing_ref, held.cause)),
    );
    format!(
        "The relay takes traces, and its spool is {percent} % full: once it is full agents get 503 and lose what they cannot keep \
         themselves. MLflow has to take what waits: {cause}"
    )
}

/// MLflow refuses the relay itself.
pub(in crate::core::status) fn relay_refused(tracing_ref: &TracingRef<'_>, cause: Cause) -> String {
    format!(
        "The relay takes traces and keeps them, since {} ({}); {}",
        why(cause),
        cause.as_str(),
        remedy(tracing_ref, cause)
    )
}

impl TracingRef<'_> {
    /// The command by which experiments that were deleted are restored.
    pub(in crate::core::status) fn restore_experiments(&self) -> Kubectl {
        self.command("patch").merge(&json!({"spec": {"experiment": {"restoreDeleted": true}}}))
    }
}

fn why(cause: Cause) -> &'static str {
    match cause {
        Cause::NoAddress => "it is not known yet where MLflow is",
        Cause::Unreachable => "MLflow cannot be reached",
        Cause::Timeout => "MLflow does not answer in time",
        Cause::TlsUntrusted => "the relay does not trust MLflow's certificate",
        Cause::LoginPage => "a login page answers in place of MLflow",
        Cause::Unauthorized => "MLflow wants credentials, or others than the relay shows",
        Cause::Forbidden => "MLflow does not let the relay write",
        Cause::WorkspaceMissing => "MLflow has no workspace for this namespace",
        Cause::WrongPath => "what answers at its address is no MLflow, or one that takes no OTLP",
        Cause::Busy => "MLflow has too much to do, or is away behind its proxy",
        Cause::StorageFull => "the storage of MLflow is full",
        Cause::ExperimentMissing => "their experiment is not there, or was deleted",
        Cause::Failed => "MLflow refuses these requests",
        Cause::TraceMissing => "MLflow does not have the trace that they are about",
    }
}

/// What to do, as the end of a sentence: it ends with the command to type.
fn remedy(tracing_ref: &TracingRef<'_>, cause: Cause) -> String {
    let TracingRef { namespace, name, mode, restores_deleted, .. } = *tracing_ref;
    let edit = || tracing_ref.command("edit");
    let describe = || tracing_ref.command("describe");
    let relay = names::relay_object(name);
    match cause {
        Cause::Unauthorized | Cause::Forbidden => refusal(tracing_ref, &relay),
        Cause::ExperimentMissing if restores_deleted => {
            format!("name another one in experiment.name: {}", edit())
        }
        Cause::ExperimentMissing => {
            format!("name another one in experiment.name, or restore it with: {}", tracing_ref.restore_experiments())
        }
        Cause::NoAddress | Cause::Unreachable | Cause::Timeout | Cause::Busy => {
            format!("condition MLflowReady says how MLflow is: {}", describe())
        }
        Cause::TlsUntrusted => {
            format!("name a ConfigMap with its certificate authority in caBundle.configMaps: {}", edit())
        }
        Cause::WorkspaceMissing => format!("condition WorkspaceReady says why: {}", describe()),
        Cause::StorageFull if mode == MlflowMode::Standalone => {
            format!("raise mlflow.standalone.storage.size: {}", edit())
        }
        Cause::StorageFull => {
            format!("make room in the database that it uses; condition MLflowReady says how MLflow is: {}", describe())
        }
        Cause::WrongPath | Cause::LoginPage if mode == MlflowMode::External => {
            format!("correct mlflow.external.trackingURI: {}", edit())
        }
        Cause::WrongPath | Cause::LoginPage => {
            format!("compare its address with condition MLflowReady: {}", describe())
        }
        Cause::Failed | Cause::TraceMissing => {
            let log = Kubectl::new("logs").namespace(namespace).arg(&format!("statefulset/{relay}"));
            format!("read the log of the relay, and that of MLflow: {log}")
        }
    }
}

/// Who gives the relay its right depends on who runs MLflow.
fn refusal(tracing_ref: &TracingRef<'_>, relay: &str) -> String {
    let TracingRef { namespace, name, mode, .. } = *tracing_ref;
    match mode {
        MlflowMode::Cr => format!(
            "service account {relay} has to be a subject of this RoleBinding, and its ClusterRole has to let it write experiments \
             (MLflow believes a refusal for five minutes): {}",
            Kubectl::new("get rolebinding").namespace(namespace).arg(names::ROLE_BINDING).yaml()
        ),
        MlflowMode::External => format!(
            "give service account {relay} its right at this MLflow: {}",
            Kubectl::new("get serviceaccount").namespace(namespace).arg(relay).yaml()
        ),
        MlflowMode::Standalone => format!(
            "read the log of MLflow: {}",
            Kubectl::new("logs").namespace(namespace).arg(&format!("deployment/{}", names::mlflow_object(name)))
        ),
    }
}
