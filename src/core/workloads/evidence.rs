//! What is known of a workload's traces, and from when on a trace is evidence of its current wiring.

use jiff::Timestamp;

use crate::core::relay::cause::Cause;
use crate::core::selection::kind::Kind;
use crate::core::workloads::{Assessment, RolloutProgress};

/// What is known of a workload's traces since its current wiring. It is said of its experiment: who sent a trace, only the relay
/// knows, of those who send by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nobody could look.
    NotAsked,
    /// There is none.
    Nothing,
    /// One without its spans, long enough ago.
    WithoutSpans,
    /// Its experiment was deleted, so that there can be none.
    NoExperiment,
    /// One with its spans, that began at this time; by the relay, that MLflow took then.
    Received(Timestamp),
    /// There were some regularly; the last began at this time, and since then it has been too long.
    Stopped(Timestamp),
    /// It sends, and some of it waits in the relay.
    Held {
        /// Why.
        cause: Cause,
        /// The last that MLflow took.
        last: Option<Timestamp>,
    },
}

impl Evidence {
    /// The same of a workload of which something waits in the relay, for whatever cause: it sends, so that it is not silent.
    #[must_use]
    pub fn of_held(self, cause: Option<Cause>) -> Self {
        match (self, cause) {
            (_, Some(cause)) => Self::Held { cause, last: self.last_trace() },
            (Self::Nothing, None) => Self::NotAsked,
            (Self::Stopped(last), None) => Self::Received(last),
            (other, None) => other,
        }
    }

    /// When the newest trace with its spans began.
    pub fn last_trace(&self) -> Option<Timestamp> {
        match self {
            Self::Received(at) | Self::Stopped(at) => Some(*at),
            Self::Held { last, .. } => *last,
            Self::NotAsked | Self::Nothing | Self::WithoutSpans | Self::NoExperiment => None,
        }
    }
}

/// The pods of a workload at one moment, those that are ending included: they still send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodAges {
    /// When the oldest pod of the current wiring was created.
    pub oldest: Option<Timestamp>,
    /// Whether pods of an earlier wiring are still there.
    pub has_earlier: bool,
}

/// What is known of the wiring before the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// There was none.
    Never,
    /// There was one.
    Replaced,
    /// The operator began to look later.
    Unknown,
}

/// From when on only pods of the current wiring exist; `None` as long as that is not so. Whatever began before may be the
/// work of a pod of the earlier wiring, that says nothing about this one.
pub fn start(
    kind: Kind,
    pods: PodAges,
    earlier: Earlier,
    rollout: &RolloutProgress,
    now: Timestamp,
) -> Option<Timestamp> {
    let oldest = pods.oldest.filter(|_| !pods.has_earlier)?;
    Some(match earlier {
        Earlier::Never => oldest,
        // No object says when the last of them ended; now is the latest possible time.
        Earlier::Replaced => oldest.max(now),
        // A Deployment tells when its rollout ended; of the others it is not known before the operator looked.
        Earlier::Unknown if kind == Kind::Deployment => oldest.max(rollout.available_since.unwrap_or(oldest)),
        Earlier::Unknown => oldest,
    })
}

/// Whether silence of a workload that used to send is strange: its pods run, and nothing but them decides when it sends.
pub fn should_send(workload: &Assessment) -> bool {
    let RolloutProgress { complete, wanted, available, .. } = workload.rollout;
    workload.kind.rolls() && complete && wanted > 0 && available >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn started(pods: PodAges, earlier: Earlier, available: Option<i64>) -> Option<i64> {
        let rollout = RolloutProgress { available_since: available.map(at), ..RolloutProgress::default() };
        start(Kind::Deployment, pods, earlier, &rollout, at(200)).map(|t| t.as_second())
    }

    #[test]
    fn what_waits_in_the_relay_is_no_silence() {
        let cause = Cause::Forbidden;
        let held = |last| Evidence::Held { cause, last };
        for (searched, told, for_a_moment) in [
            (Evidence::Nothing, held(None), Evidence::NotAsked),
            (Evidence::Received(at(7)), held(Some(at(7))), Evidence::Received(at(7))),
            (Evidence::Stopped(at(7)), held(Some(at(7))), Evidence::Received(at(7))),
        ] {
            assert_eq!(searched.of_held(Some(cause)), told);
            assert_eq!(searched.of_held(None), for_a_moment);
        }
    }

    // Section 3, point 1: the old pod sent once more, 0.7 s after the new ReplicaSet was made.
    #[test]
    fn a_wiring_starts_when_the_last_pod_of_the_earlier_one_is_gone() {
        let alone = PodAges { oldest: Some(at(100)), has_earlier: false };
        let beside = PodAges { has_earlier: true, ..alone };
        for earlier in [Earlier::Never, Earlier::Replaced, Earlier::Unknown] {
            assert_eq!(started(beside, earlier, Some(150)), None, "{earlier:?}: an old pod still sends");
        }
        assert_eq!(started(alone, Earlier::Replaced, Some(150)), Some(200), "gone when it was looked at");
        assert_eq!(started(alone, Earlier::Never, Some(150)), Some(100), "nobody else could have sent");
        assert_eq!(started(alone, Earlier::Unknown, Some(150)), Some(150), "when the rollout ended");
        assert_eq!(started(alone, Earlier::Unknown, None), Some(100));
        assert_eq!(started(PodAges::default(), Earlier::Never, None), None, "no pod, no start");
    }
}
