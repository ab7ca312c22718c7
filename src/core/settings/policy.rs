//! An AgentTracing as selection and wiring need it: what it wants of workloads, and what is known of its MLflow.

use super::{Facts, Server, Settings};
use crate::api::{
    AgentTracing, CaBundle, CaBundleMode, CaBundleScope, CaBundleStrategy, ConfigMapKey, Rollout, RolloutPolicy,
};

/// What one AgentTracing wants, and what its status knows.
#[derive(Clone, Debug)]
pub struct Policy {
    /// From the spec.
    pub settings: Settings,
    /// From the status.
    pub facts: Facts,
}

impl Policy {
    /// That of an AgentTracing, also where something is wrong with its spec: see [`super::read`].
    pub fn of(tracing: &AgentTracing) -> Self {
        let (settings, _) = super::read(tracing);
        Self { settings, facts: Facts::of(tracing) }
    }

    /// The workspace that traces go to.
    pub fn workspace(&self) -> Option<&str> {
        self.settings.workspace_at(&self.facts)
    }
}

/// Which certificate authorities agents get, and who merges them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaChoice {
    /// Who merges.
    pub strategy: CaBundleStrategy,
    /// Which of the agent's calls trust them.
    pub scope: CaBundleScope,
    /// More sources.
    pub config_maps: Vec<ConfigMapKey>,
}

impl CaChoice {
    /// What the spec wants for agents of this server; `None`: nothing.
    pub(super) fn of(bundle: CaBundle, server: &Server) -> Option<Self> {
        let CaBundle { mode, strategy, scope, config_maps } = bundle;
        let wanted = match (mode.unwrap_or_default(), server) {
            (CaBundleMode::Never, _) | (CaBundleMode::Auto, Server::Standalone(_)) => false,
            (CaBundleMode::Always, _) | (CaBundleMode::Auto, Server::Cr(_)) => true,
            (CaBundleMode::Auto, Server::External(external)) => {
                let https = external.tracking_uri.as_ref().is_some_and(|uri| uri.starts_with("https://"));
                https && !config_maps.is_empty()
            }
        };
        let (strategy, scope) = (strategy.unwrap_or_default(), scope.unwrap_or_default());
        wanted.then_some(Self { strategy, scope, config_maps })
    }
}

/// How fast workloads may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutStrategy {
    /// Who changes them.
    pub policy: RolloutPolicy,
    /// How many of one AgentTracing may be unavailable at a time because of us.
    pub max_concurrent: usize,
}

impl RolloutStrategy {
    pub(super) fn of(rollout: Rollout) -> Self {
        let Rollout { policy, max_concurrent } = rollout;
        let default = Self::default();
        Self {
            policy: policy.unwrap_or(default.policy),
            max_concurrent: max_concurrent.map_or(default.max_concurrent, usize::from),
        }
    }
}

impl Default for RolloutStrategy {
    fn default() -> Self {
        Self { policy: RolloutPolicy::Automatic, max_concurrent: 5 }
    }
}
