//! Experiments: found by name, made, restored, and written to where a server is suspected of refusing writes.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::answer::{SearchResponse, numeric_id};
use super::{Error, MlflowClient, whole};

/// An experiment that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Experiment {
    /// Its numeric id. Another database may give the same one to another experiment.
    pub id: String,
    /// Whether it takes traces.
    pub stage: Stage,
    /// When it was created, in milliseconds, as far as the server says: tells it from one of the same id in a new database.
    pub created: Option<i64>,
    /// Whether it was made just now.
    pub is_new: bool,
}

/// Whether an experiment takes traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It does.
    Active,
    /// It is deleted: MLflow accepts no trace for it and no other of its name.
    Deleted,
}

/// Tag of an experiment that says when it was last written to by way of trial.
const WRITE_TAG: &str = "agenttracing.dev/last-write-check";

impl MlflowClient {
    /// Finds an experiment by name, or creates it. A deleted one is restored or reported.
    pub async fn ensure_experiment(&self, name: &str, restore_deleted: bool) -> Result<Experiment, Error> {
        let found = match self.experiment(name).await? {
            Some(found) => found,
            None => match self.create_experiment(name).await {
                // An agent created it in between: it is there now.
                Err(Error::Rejected { code: Some(code), .. }) if code == "RESOURCE_ALREADY_EXISTS" => {
                    self.experiment(name).await?.ok_or(Error::Garbage)?
                }
                created => Experiment { id: created?, stage: Stage::Active, created: None, is_new: true },
            },
        };
        if found.stage == Stage::Active || !restore_deleted {
            return Ok(found);
        }
        let body = json!({"experiment_id": found.id});
        let request = self.request(Method::POST, "/api/2.0/mlflow/experiments/restore").json(&body);
        self.http.measure(whole(request)).await?;
        Ok(Experiment { stage: Stage::Active, ..found })
    }

    /// The ids of the experiments that were deleted last, the latest first.
    pub async fn deleted_experiments(&self, most: usize) -> Result<Vec<String>, Error> {
        let body = json!({"max_results": most, "view_type": "DELETED_ONLY", "order_by": ["last_update_time DESC"]});
        let request = self.request(Method::POST, "/api/2.0/mlflow/experiments/search").json(&body);
        Ok(self.json::<SearchResponse>(request).await?.all().map(|experiment| experiment.id).collect())
    }

    async fn experiment(&self, name: &str) -> Result<Option<Experiment>, Error> {
        let request = match filter(name) {
            Some(filter) => {
                // `max_results` is mandatory; without `view_type` a deleted experiment would look absent.
                let body = json!({"max_results": 1, "filter": filter, "view_type": "ALL"});
                self.request(Method::POST, "/api/2.0/mlflow/experiments/search").json(&body)
            }
            None => {
                self.request(Method::GET, "/api/2.0/mlflow/experiments/get-by-name").query(&[("experiment_name", name)])
            }
        };
        let found: SearchResponse = match self.json(request).await {
            Err(Error::NotFound(Some(code))) if code == "RESOURCE_DOES_NOT_EXIST" => return Ok(None),
            found => found?,
        };
        Ok(found.first())
    }

    async fn create_experiment(&self, name: &str) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(deserialize_with = "numeric_id")]
            experiment_id: String,
        }
        let request = self.request(Method::POST, "/api/2.0/mlflow/experiments/create").json(&json!({"name": name}));
        Ok(self.json::<Created>(request).await?.experiment_id)
    }

    /// Writes something harmless, to learn whether the server can write: reads succeed on a full disk and on a read-only
    /// database. The value has to differ from the last one, or the database has nothing to write.
    pub async fn write_check(&self, experiment_id: &str, value: &str) -> Result<(), Error> {
        let body = json!({"experiment_id": experiment_id, "key": WRITE_TAG, "value": value});
        let request = self.request(Method::POST, "/api/2.0/mlflow/experiments/set-experiment-tag").json(&body);
        self.http.measure(whole(request)).await.map(|_| ())
    }
}

/// MLflow's filter language has quotes but no escapes, so a name with both kinds cannot be searched for.
pub(super) fn filter(name: &str) -> Option<String> {
    match (name.contains('\''), name.contains('"')) {
        (false, _) => Some(format!("name = '{name}'")),
        (true, false) => Some(format!("name = \"{name}\"")),
        (true, true) => None,
    }
}
