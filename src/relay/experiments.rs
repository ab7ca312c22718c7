//! Experiments as agents know them: by MLflow's id where it is known, else by one that the relay made up and that becomes MLflow's
//! when a request goes there.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::forward::Forwarder;
use crate::core::relay::cause::Cause;
use crate::core::relay::ids;
use crate::core::relay::sender::{ExperimentRef, Sender};

/// Names by made-up id.
#[derive(Debug, Default)]
pub struct Experiments(Mutex<BTreeMap<String, String>>);

impl Experiments {
    /// A name was asked for or sent to. Those of lanes are remembered beyond the end of the process, for the spool has them.
    pub fn remember(&self, name: &str) {
        let id = ids::made_up_experiment(name);
        self.lock().entry(id).or_insert_with(|| name.to_owned());
    }

    fn name(&self, id: &str) -> Option<String> {
        self.lock().get(id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Forwarder {
    /// The experiment of a workload, if it is known yet where traces go.
    pub fn experiment_of(&self, sender: &Sender) -> Option<ExperimentRef> {
        self.target().map(|target| ExperimentRef::Name(target.experiment_of(sender)))
    }

    /// An experiment by the id that an agent has of it.
    pub fn experiment_by_id(&self, sender: &Sender, id: &str) -> ExperimentRef {
        let target = self.target();
        let known = target.as_ref().and_then(|target| target.name_of(id)).or_else(|| self.experiments.name(id));
        let own =
            || target.map(|target| target.experiment_of(sender)).filter(|name| ids::made_up_experiment(name) == id);
        known.or_else(own).map_or_else(|| ExperimentRef::Id(id.to_owned()), ExperimentRef::Name)
    }

    /// The id of an experiment for an agent that asks by name.
    pub async fn id_for(&self, sender: &Sender, name: &str) -> String {
        self.experiments.remember(name);
        if let Some(id) = self.target().and_then(|target| target.known_id(name)) {
            return id;
        }
        // A lane is kept on the disk, so that the id means this name after a new start too.
        if let Err(error) = self.lane(sender, &ExperimentRef::Name(name.to_owned())).await {
            tracing::warn!(%error, "a made-up id of an experiment is forgotten when the process ends");
        }
        ids::made_up_experiment(name)
    }

    /// A text in which every id that the relay made up is MLflow's.
    pub async fn with_real_ids(&self, sender: &Sender, text: &str) -> Result<String, Cause> {
        let mut real = text.to_owned();
        for id in ids::made_up_in(text) {
            let ExperimentRef::Name(name) = self.experiment_by_id(sender, id) else { continue };
            let target = self.target().ok_or(Cause::NoAddress)?;
            let found = target.experiment_id(&target.client(&self.http())?, &name).await?;
            real = real.replace(id, &found);
        }
        Ok(real)
    }
}
