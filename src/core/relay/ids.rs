//! Ids that the relay makes in MLflow's place.

use sha2::{Digest, Sha256};

/// An experiment's id for agents while MLflow has not said its own: the same one for a name, always. No database gives out a number of
/// 15 digits that begins with 9, and the SDK's file store has 18.
pub fn made_up_experiment(name: &str) -> String {
    let number = Sha256::digest(name).iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("9{:014}", number % 100_000_000_000_000)
}

/// What looks like a made-up id in a text: numbers that are as long.
pub fn made_up_in(text: &str) -> Vec<&str> {
    let numbers = text.split(|c: char| !c.is_ascii_digit());
    let mut found: Vec<_> = numbers.filter(|number| number.len() == LENGTH && number.starts_with('9')).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// An assessment's id. It follows from what is assessed and how, so that an agent that sends the same again after a broken connection
/// does not assess twice.
pub fn assessment(trace: &str, body: &[u8]) -> String {
    let digest = Sha256::new().chain_update(trace).chain_update([0]).chain_update(body).finalize();
    digest.iter().take(16).fold("a-".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}

const LENGTH: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_id_is_a_number_that_follows_from_the_name_and_is_found_again() {
        let id = made_up_experiment("teller");
        assert_eq!(id, made_up_experiment("teller"));
        assert_ne!(id, made_up_experiment("ledger"));
        assert_eq!((id.len(), id.starts_with('9'), id.bytes().all(|byte| byte.is_ascii_digit())), (15, true, true));
        let body =
            format!(r#"{{"experiment_ids": ["{id}", "{id}", "12"], "timestamp_ms": 1790000000000, "n": 9{id}}}"#);
        assert_eq!(made_up_in(&body), [id.as_str()]);
    }

    #[test]
    fn the_same_assessment_has_the_same_id() {
        let id = assessment("tr-1", b"{}");
        assert_eq!((id.len(), id.get(..2)), (34, Some("a-")));
        assert_eq!(id, assessment("tr-1", b"{}"));
        assert_ne!(id, assessment("tr-2", b"{}"));
        assert_ne!(id, assessment("tr-1", b"{ }"));
    }
}
