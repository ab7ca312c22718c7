//! Who sends, and to which experiment.

use std::fmt;
use std::str::FromStr;

/// Who sends, as its address says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender {
    kind: String,
    name: String,
}

/// Of which experiment the traces are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExperimentRef {
    /// By its name: found or created in MLflow.
    Name(String),
    /// By the numeric id that the agent itself gave.
    Id(String),
}

/// The agent's own experiment id is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "header {EXPERIMENT_ID} is \"{0}\": MLflow's experiment ids are numbers; take the header out and the experiment's name is used"
)]
pub struct NotAnId(String);

/// Header with the numeric id of an experiment, as MLflow itself reads it.
pub const EXPERIMENT_ID: &str = "x-mlflow-experiment-id";

/// The experiment that the agent names, else the one of its workload.
pub fn experiment(own_id: Option<&str>, of_workload: String) -> Result<ExperimentRef, NotAnId> {
    match own_id {
        None | Some("") => Ok(ExperimentRef::Name(of_workload)),
        Some(id) if id.len() <= MAX_ID && id.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(ExperimentRef::Id(id.to_owned()))
        }
        Some(other) => Err(NotAnId(other.chars().take(SHOWN).collect())),
    }
}

impl Sender {
    /// A workload by kind, in any case, and name. Pods that are wired by themselves have their owner's kind, which may be any.
    pub fn new(kind: &str, name: &str) -> Option<Self> {
        let is_kind = (1..=63).contains(&kind.len()) && kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let ends_well = |end: Option<u8>| end.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let is_name = name.len() <= 253
            && ends_well(name.bytes().next())
            && ends_well(name.bytes().last())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
        (is_kind && is_name).then(|| Self { kind: kind.to_ascii_lowercase(), name: name.to_owned() })
    }

    /// The workload's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// `deployment/teller`, as people write it for kubectl.
impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// `name:teller` or `id:12`.
impl fmt::Display for ExperimentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "name:{name}"),
            Self::Id(id) => write!(f, "id:{id}"),
        }
    }
}

/// As [`Display`](fmt::Display) writes it.
impl FromStr for Sender {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.split_once('/').and_then(|(kind, name)| Self::new(kind, name)).ok_or(())
    }
}

impl FromStr for ExperimentRef {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':').ok_or(())? {
            ("name", name) => Ok(Self::Name(name.to_owned())),
            ("id", id) => Ok(Self::Id(id.to_owned())),
            _ => Err(()),
        }
    }
}

const MAX_ID: usize = 64;
/// Characters of what somebody sent that an error shows.
const SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_written_as_people_write_it() {
        let sender = Sender::new("Deployment", "teller").unwrap();
        assert_eq!((sender.to_string().as_str(), sender.name()), ("deployment/teller", "teller"));
        assert_eq!(sender.to_string().parse(), Ok(sender));
    }

    #[test]
    fn an_own_experiment_id_wins_and_has_to_be_a_number() {
        let of = |id| experiment(id, "teller".to_owned());
        assert_eq!(of(Some("12")), Ok(ExperimentRef::Id("12".to_owned())));
        // An empty header is what an agent sends whose variable is not set.
        for nothing in [None, Some("")] {
            assert_eq!(of(nothing), Ok(ExperimentRef::Name("teller".to_owned())));
        }
        assert!(of(Some("teller")).unwrap_err().to_string().contains("is \"teller\""));
        for experiment in [of(Some("12")).unwrap(), of(None).unwrap(), ExperimentRef::Name("a:b/c".to_owned())] {
            assert_eq!(experiment.to_string().parse(), Ok(experiment));
        }
    }
}
