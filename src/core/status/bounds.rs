//! The one boundary where every text of a status is brought within what its schema admits: one that is too long would have the
//! whole status refused, in every pass.

use crate::api::{AgentTracingStatus, WorkloadStatus};

/// Most characters of a condition's or a workload's message.
const MESSAGE: usize = 2048;
/// Of these the last ones, with the command to type.
const COMMAND: usize = 1024;

/// A text of at most so many characters; one that is cut ends with `…`.
pub fn clipped(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// A message of at most so many characters. It loses its middle: it ends with the command to type.
fn clipped_message(text: &str) -> String {
    let length = text.chars().count();
    if length <= MESSAGE {
        return text.to_owned();
    }
    let head = text.chars().take(MESSAGE - COMMAND - 1);
    head.chain(['…']).chain(text.chars().skip(length - COMMAND)).collect()
}

/// A status whose texts and lists its schema admits.
pub(super) fn bounded(status: AgentTracingStatus) -> AgentTracingStatus {
    let mut status = status;
    for condition in &mut status.conditions {
        condition.message = clipped_message(&condition.message);
    }
    for experiment in &mut status.experiments {
        experiment.name = clipped(&experiment.name, 512);
        experiment.id = clipped(&experiment.id, 64);
    }
    if let Some(mlflow) = &mut status.mlflow {
        mlflow.version = clipped(&mlflow.version, 64);
    }
    if let Some(refused) = &mut status.merge_ca {
        refused.message = clipped(&refused.message, 1024);
    }
    for workload in &mut status.workloads {
        let WorkloadStatus { kind, name, state: _, reason, message, experiment, last_trace_time: _, notes } = workload;
        *kind = clipped(kind, 63);
        *name = clipped(name, 253);
        *reason = reason.as_deref().map(|reason| clipped(reason, 64));
        *message = message.as_deref().map(clipped_message);
        *experiment = experiment.as_deref().map(|experiment| clipped(experiment, 512));
        notes.truncate(16);
        notes.iter_mut().for_each(|note| *note = clipped(note, 256));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_command() {
        let long = format!("It waits: {}; look with: kubectl get pods", "ü".repeat(5000));
        let message = clipped_message(&long);
        assert_eq!(message.chars().count(), MESSAGE);
        assert!(message.starts_with("It waits") && message.ends_with("kubectl get pods"));
        assert_eq!(clipped_message("short"), "short");
        assert_eq!(clipped("abcdef", 4), "abc…");
    }
}
