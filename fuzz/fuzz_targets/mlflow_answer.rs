//! Any bytes as the body of MLflow's answer: the client never panics, and nothing of the body gets through but what MLflow
//! itself would say.

#![no_main]

#[allow(dead_code, unused_imports)]
#[path = "../../src/mlflow/mod.rs"]
mod mlflow;

use libfuzzer_sys::fuzz_target;
use mlflow::{Experiment, ServerAnswer, classify};

fuzz_target!(|data: &[u8]| {
    let Some((head, body)) = data.split_at_checked(2) else { return };
    // Any status that is not a success, most often one that MLflow gives.
    let status = [400, 401, 403, 404, 405, 429, 500, 503, 100 + u16::from(head[0])][usize::from(head[0] % 9)];
    let ServerAnswer { version, experiment, trace: _, refusal } = classify(status, head[1] & 1 == 1, body);
    if let Ok(version) = &version {
        assert!(version.len() <= 64 && version.bytes().all(|b| b.is_ascii_graphic()), "a version {version:?}");
    }
    if let Ok(Some(Experiment { id, .. })) = &experiment {
        assert!(id.parse::<f64>().is_ok() && id.bytes().all(|b| b.is_ascii_digit()), "an id {id:?}");
    }
    for error in [version.err(), experiment.err(), refusal].into_iter().flatten() {
        let text = error.to_string();
        assert!(text.len() < 160 && text.bytes().all(|b| (b' '..=b'~').contains(&b)), "an error {text:?}");
    }
});
