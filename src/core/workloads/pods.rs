//! Pods that are wired by themselves, gathered by what owns them: a user thinks of the Rollout or the sandbox, not of its pods.

use std::collections::BTreeMap;

use super::{Assessment, InjectionState};

/// Pods by the kind and name that they are listed as.
#[derive(Debug, Default)]
pub struct PodGroups(BTreeMap<(String, String), Assessment>);

impl PodGroups {
    /// Adds a Pod to those of its owner.
    pub fn add(&mut self, pod: Assessment) {
        let key = (pod.listed_kind().to_owned(), pod.name.clone());
        let together = match self.0.remove(&key) {
            Some(before) => merged(before, pod),
            None => pod,
        };
        self.0.insert(key, together);
    }

    /// One for each owner.
    pub fn into_groups(self) -> impl Iterator<Item = Assessment> {
        self.0.into_values()
    }
}

/// The newest Pod tells what the owner makes now; one that is not wired is told all the same.
fn merged(a: Assessment, b: Assessment) -> Assessment {
    let key = |assessment: &Assessment| (assessment.created, assessment.pod.as_ref().map(|pod| pod.name.clone()));
    let (mut newer, older) = if key(&a) >= key(&b) { (a, b) } else { (b, a) };
    if newer.record == older.record {
        newer.created = older.created;
        let since = [newer.rollout.available_since, older.rollout.available_since];
        newer.rollout.available_since = since.into_iter().flatten().min();
    }
    if newer.injection_state == InjectionState::Current
        && matches!(older.injection_state, InjectionState::Skipped { .. })
    {
        newer.injection_state = older.injection_state;
    }
    for note in older.notes {
        if !newer.notes.contains(&note) {
            newer.notes.push(note);
        }
    }
    newer
}
