//! What a decision means for the answer, the person who sent the object, the metrics and the log.

use axum::http::StatusCode;
use json_patch::PatchOperation;

use crate::api::Reason;
use crate::core::decide::{Decision, Leave};
use crate::core::inject::record::RecordError;
use crate::core::inject::{InjectionResult, Note};
use crate::core::kubectl::Kubectl;
use crate::core::selection::NotSelected;
use crate::core::selection::kind::Kind;
use crate::core::wiring::{Missing, TRACKING_URI};

/// The outcome of a review.
#[derive(Debug, Default)]
pub(super) struct AdmissionOutcome {
    pub patch: Vec<PatchOperation>,
    pub warnings: Vec<String>,
    pub result: Answered,
    /// Metric label and log field: always one of a few words.
    pub reason: &'static str,
    /// The AgentTracing that applies; empty where none does.
    pub tracing: String,
    /// For the log: what is wrong, in words that quote nothing of the object.
    pub error: Option<String>,
}

/// What was answered. Metric label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answered {
    /// The patch brings the wiring.
    Injected,
    /// The object carries the wiring already: no patch.
    Unchanged,
    /// The patch takes our wiring out.
    Removed,
    /// No patch; the reason says why.
    #[default]
    Left,
    /// No patch, since something is wrong with the object or with us.
    Failed,
}

impl Answered {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
            Self::Left => "left",
            Self::Failed => "failed",
        }
    }
}

/// Why a request gets no review back. Metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestRefusal {
    NotAReview,
    TooLarge,
    TooBusy,
    TooSlow,
    CutOff,
}

impl RequestRefusal {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAReview => "NotAReview",
            Self::TooLarge => "TooLarge",
            Self::TooBusy => "TooBusy",
            Self::TooSlow => "TooSlow",
            Self::CutOff => "CutOff",
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Self::NotAReview | Self::CutOff => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooBusy => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }

    pub fn message(self) -> &'static str {
        match self {
            Self::NotAReview => "the body is not an AdmissionReview",
            Self::TooLarge => "the body is larger than 7 MiB",
            Self::TooBusy => "too many large reviews are in flight",
            Self::TooSlow => "the body did not arrive within 1.5 s",
            Self::CutOff => "the body ended too early",
        }
    }
}

impl AdmissionOutcome {
    /// The answer to a decision. Warnings are for people: the operator's own requests get none.
    pub fn of(decision: Decision, kind: Kind, namespace: &str, for_a_person: bool) -> Self {
        let mut outcome = match decision {
            Decision::Wire { tracing, experiment: _, injection } => Self::wire(tracing, injection),
            Decision::Unwire(patch) => {
                Self { patch, result: Answered::Removed, reason: Reason::OptedOut.as_str(), ..Self::default() }
            }
            Decision::Leave(leave) => Self::leave(leave, kind, namespace),
        };
        if !for_a_person {
            outcome.warnings.clear();
        }
        outcome.warnings.truncate(MAX_WARNINGS);
        outcome.warnings.iter_mut().for_each(make_printable);
        outcome
    }

    pub fn other_kind() -> Self {
        Self::unpatched("OtherKind")
    }

    pub fn own_write() -> Self {
        Self::unpatched("OwnWrite")
    }

    pub fn not_ready() -> Self {
        Self::unpatched("NotReady")
    }

    pub fn panicked() -> Self {
        Self { result: Answered::Failed, reason: "Panicked", ..Self::default() }
    }

    pub fn undecodable(error: impl Into<String>) -> Self {
        let error = Some(error.into());
        Self { result: Answered::Failed, reason: "Undecodable", error, ..Self::default() }
    }

    fn unpatched(reason: &'static str) -> Self {
        Self { reason, ..Self::default() }
    }

    fn wire(tracing: String, injection: InjectionResult) -> Self {
        let InjectionResult { patch, hash: _, was_wired: _, notes, skipped } = injection;
        let (result, reason) = match (skipped, patch.is_empty()) {
            (Some(why), true) => (Answered::Left, why.as_str()),
            (Some(why), false) => (Answered::Removed, why.as_str()),
            (None, true) => (Answered::Unchanged, "Current"),
            (None, false) => (Answered::Injected, "Wired"),
        };
        // No warning on an apply that changes nothing.
        let news = if patch.is_empty() && skipped.is_none() { Vec::new() } else { notes };
        let warnings = news.iter().filter_map(|note| warning(note, &tracing)).collect();
        Self { patch, warnings, result, reason, tracing, error: None }
    }

    fn leave(leave: Leave, kind: Kind, namespace: &str) -> Self {
        match leave {
            Leave::NotSelected(why) => Self::unpatched(match why {
                NotSelected::NamespaceNotLabelled => Reason::NamespaceNotLabelled.as_str(),
                NotSelected::NamespaceExcluded => Reason::NamespaceExcluded.as_str(),
                NotSelected::OptedOut => Reason::OptedOut.as_str(),
                NotSelected::OperatorsOwn => "OperatorsOwn",
                NotSelected::Windows => Reason::Windows.as_str(),
                NotSelected::OfCronJob => "OfCronJob",
                NotSelected::MirrorPod => "MirrorPod",
                NotSelected::Kind => "KindNotListed",
                NotSelected::NoMatch => "NoMatch",
            }),
            Leave::Suspended { tracing } => Self { tracing, ..Self::unpatched(Reason::Suspended.as_str()) },
            Leave::Blocked { tracing, missing } => {
                let (reason, what) = match missing {
                    Missing::TrackingUri => (Reason::WaitingForMLflow.as_str(), "MLflow has answered"),
                    Missing::ExperimentId => ("WaitingForExperiment", "its experiment exists in MLflow"),
                    Missing::Relay => ("WaitingForRelay", "the relay is ready"),
                    Missing::Binding => ("WaitingForBinding", "its service account may write to MLflow"),
                };
                let advice = match kind.template_is_mutable() {
                    true => format!("not wired yet; the operator does it as soon as {what}"),
                    false => format!("not wired; create this {} again when {what}", kind.as_str()),
                };
                let look = Kubectl::new("get agenttracing").arg(&tracing).namespace(namespace);
                let warning = format!("agent-tracing: {advice} ({look})");
                Self { tracing, warnings: vec![warning], ..Self::unpatched(reason) }
            }
            Leave::Record { tracing, error } => {
                let reason = match &error {
                    RecordError::Unreadable(_) => Reason::RecordUnreadable.as_str(),
                    RecordError::FutureVersion(_) => "RecordNewer",
                };
                let warning = match error {
                    RecordError::Unreadable(_) => {
                        "agent-tracing: left alone, since the template's annotation agenttracing.dev/injected cannot be \
                         read; take it out of your manifest together with the MLFLOW_ variables it came with"
                            .to_owned()
                    }
                    newer @ RecordError::FutureVersion(_) => format!("agent-tracing: left alone: {newer}"),
                };
                Self { tracing, warnings: vec![warning], result: Answered::Failed, reason, ..Self::default() }
            }
        }
    }
}

/// What a person should hear at the moment of `kubectl apply`: a value of theirs decides where traces go. That `envFrom`
/// might be overridden is a guess, and an OTLP endpoint beside MLflow costs no trace: both stand in status only.
fn warning(note: &Note, tracing: &str) -> Option<String> {
    match note {
        Note::KeptByUser { container, variables } if variables.iter().any(|v| v == TRACKING_URI) => Some(format!(
            "agent-tracing: container {container} sets {TRACKING_URI} itself and gets nothing from AgentTracing {tracing}"
        )),
        // An init container, a volume or a mount is the pod's, and no variable of a container that happens to be called so.
        Note::KeptByUser { container, variables }
            if container == "pod" && variables.iter().all(|v| v.contains(['/', ':'])) =>
        {
            Some(format!(
                "agent-tracing: the pod keeps its own {} rather than AgentTracing {tracing}'s",
                variables.join(", ")
            ))
        }
        Note::KeptByUser { container, variables } => Some(format!(
            "agent-tracing: container {container} keeps its own {} rather than AgentTracing {tracing}'s",
            variables.join(", ")
        )),
        Note::MayOverrideEnvFrom { .. } | Note::OtlpEndpoint { .. } => None,
        Note::NoToken { .. } | Note::Proxied { .. } | Note::SdkDisabled { .. } | Note::NodeDns { .. } => {
            Some(format!("agent-tracing: {note}"))
        }
    }
}

/// Where reading failed. serde's own message quotes the value it stumbled over, which may be a secret.
pub(super) fn place(error: &serde_json::Error) -> String {
    format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column()).to_lowercase()
}

/// Warnings travel in HTTP headers: no control characters, and longer ones are cut by the API server without a sign.
fn make_printable(warning: &mut String) {
    warning.retain(|c| c == ' ' || c.is_ascii_graphic());
    if warning.len() > MAX_WARNING {
        warning.truncate(MAX_WARNING - 3);
        warning.push_str("...");
    }
}

const MAX_WARNING: usize = 256;
/// 16 × 256 is the API server's 4,096 in all.
const MAX_WARNINGS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// "container pod keeps its own volume" was once said of a pod.
    #[test]
    fn a_volume_is_the_pods_and_a_variable_the_containers() {
        let kept = |container: &str, what: &str| {
            warning(&Note::KeptByUser { container: container.into(), variables: vec![what.into()] }, "tracing").unwrap()
        };
        let end = "rather than AgentTracing tracing's";
        let said = kept("pod", "volume: ca-bundle");
        assert_eq!(said, format!("agent-tracing: the pod keeps its own volume: ca-bundle {end}"));
        // A container may be called so.
        let said = kept("pod", "MLFLOW_EXPERIMENT_NAME");
        assert_eq!(said, format!("agent-tracing: container pod keeps its own MLFLOW_EXPERIMENT_NAME {end}"));
    }
}
