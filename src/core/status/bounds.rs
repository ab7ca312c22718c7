//! The one boundary where every text of a status is brought within what its schema admits: one that is too long would have the
//! whole status refused, in every pass.

use crate::api::{AgentTracingStatus, WorkloadStatus};
use crate::core::clip::clip;

/// Most characters of a condition's or a workload's message.
const MESSAGE: usize = 2048;
/// Of these the last ones, with the command to type.
const COMMAND: usize = 1024;

/// A message of at most so many characters. It loses its middle: it ends with the command to type.
fn clip_message(text: &str) -> String {
    let length = text.chars().count();
    if length <= MESSAGE {
        return text.to_owned();
    }
    let head = text.chars().take(MESSAGE - COMMAND - 1);
    head.chain(['…']).chain(text.chars().skip(length - COMMAND)).collect()
}

/// A status whose texts and lists its schema admits.
pub(super) fn clip_all(status: AgentTracingStatus) -> AgentTracingStatus {
    let mut status = status;
    for condition in &mut status.conditions {
        condition.message = clip_message(&condition.message);
    }
    for experiment in &mut status.experiments {
        experiment.name = clip(&experiment.name, 512);
        experiment.id = clip(&experiment.id, 64);
    }
    if let Some(mlflow) = &mut status.mlflow {
        mlflow.version = clip(&mlflow.version, 64);
    }
    if let Some(refused) = &mut status.merge_ca {
        refused.message = clip(&refused.message, 1024);
    }
    for workload in &mut status.workloads {
        let WorkloadStatus { kind, name, state: _, reason, message, experiment, last_trace_time: _, notes } = workload;
        *kind = clip(kind, 63);
        *name = clip(name, 253);
        *reason = reason.as_deref().map(|reason| clip(reason, 64));
        *message = message.as_deref().map(clip_message);
        *experiment = experiment.as_deref().map(|experiment| clip(experiment, 512));
        notes.truncate(16);
        notes.iter_mut().for_each(|note| *note = clip(note, 256));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_command() {
        let long = format!("It waits: {}; look with: kubectl get pods", "ü".repeat(5000));
        let message = clip_message(&long);
        assert_eq!(message.chars().count(), MESSAGE);
        assert!(message.starts_with("It waits") && message.ends_with("kubectl get pods"));
        assert_eq!(clip_message("short"), "short");
        assert_eq!(clip("abcdef", 4), "abc…");
    }
}
