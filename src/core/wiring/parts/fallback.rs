//! Where an init container cannot be pulled, started or admitted, what stands for its part instead.

use super::{AUTHORITIES, PodPart};
use crate::core::inject::view::Workload;
use crate::core::settings::Platform;
use crate::core::settings::policy::Policy;

/// Why the fallback of a part takes its place in a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FallbackReason {
    /// The init container could not be pulled or started in it.
    NotStarted,
    /// The cluster did not admit its pods, or the workload itself, with the init container.
    Refused,
    /// The cluster does not admit the init container in its namespace, as a dry run told before anything was wired there.
    RefusedInNamespace,
}

/// Annotations of a workload that has to do without the init containers of a part. The value is the source of their image: it
/// counts until that is another one.
#[derive(Debug, PartialEq, Eq)]
pub struct FallbackAnnotations {
    /// For [`FallbackReason::NotStarted`].
    pub not_started: &'static str,
    /// For [`FallbackReason::Refused`].
    pub refused: &'static str,
}

impl PodPart {
    /// Where the images of its init containers come from, as one short word; `None` where it has none.
    pub fn source(&self, workload: &Workload<'_>, platform: &Platform) -> Option<String> {
        let sources = self.init_containers.iter().map(|container| container.image.source(workload, platform));
        let sources: Vec<_> = sources.collect();
        (!sources.is_empty()).then(|| sources.join("-"))
    }

    /// Why its init containers have no place in this workload, if they have none. That stands on the workload itself or in the
    /// status of its AgentTracing, where the webhook sees it, and counts until the image is another one.
    pub fn why_not(&self, workload: &Workload<'_>, policy: &Policy, platform: &Platform) -> Option<FallbackReason> {
        let annotations = self.kind.fallback.as_ref()?;
        let source = self.source(workload, platform)?;
        let is_from = |annotation| workload.metadata.annotation(annotation) == Some(source.as_str());
        if is_from(annotations.refused) {
            return Some(FallbackReason::Refused);
        }
        if is_from(annotations.not_started) {
            return Some(FallbackReason::NotStarted);
        }
        // What a namespace refuses is asked and kept for the certificate authorities alone.
        let is_refused = std::ptr::eq(self.kind, &AUTHORITIES) && policy.facts.refused_merge_ca == Some(source);
        is_refused.then_some(FallbackReason::RefusedInNamespace)
    }

    /// The part where it has a place in this workload, else its fallback.
    pub fn or_fallback(self, workload: &Workload<'_>, policy: &Policy, platform: &Platform) -> Option<Self> {
        match self.why_not(workload, policy, platform) {
            Some(_) => self.fallback.map(|fallback| *fallback),
            None => Some(self),
        }
    }
}
