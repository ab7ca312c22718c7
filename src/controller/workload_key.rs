//! How a workload is called in what is remembered between passes.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::core::workloads::Assessment;

/// A hash of its name: a namespace may have thousands of workloads, and each memory would hold every name once more. That two of
/// 10,000 are taken for one happens once in 10¹¹ clusters, and costs an event or a place in a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WorkloadKey(u64);

impl WorkloadKey {
    /// Of a name like `deployment/teller`.
    pub(super) fn of(resource: &str) -> Self {
        Self::from(resource)
    }

    /// Of a workload, whatever its template is.
    pub(super) fn of_workload(workload: &Assessment) -> Self {
        Self::of(&format!("{}/{}", workload.listed_kind().to_ascii_lowercase(), workload.name))
    }

    /// Of a workload with its current wiring: one that is changed, or made anew with the same name, is another one.
    pub(super) fn of_wiring(workload: &Assessment) -> Self {
        Self::from((&workload.uid, &workload.record))
    }

    fn from(name: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(hasher.finish())
    }
}
