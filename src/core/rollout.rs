//! Which workloads may be rolled now, and the touch that rolls them.
//!
//! The touch is `<wanted hash>/<n>/<window start>`: n counts the repairs of one cause durably, on the object itself, so
//! that a restarted operator neither starts over nor fights someone who strips our entries again and again.

use super::workload::{Judged, Standing};

/// How many Deployments of one AgentTracing may be rolling at a time because of us.
pub const MAX_CONCURRENT: usize = 5;
/// Repairs of one cause within [`WINDOW`].
const MAX_REPAIRS: u32 = 6;
/// Seconds after which repairs are counted anew.
const WINDOW: i64 = 600;

/// Indexes of the workloads to touch now, by name. Paused Deployments wait: they would not roll.
pub fn due(judged: &[Judged], now: i64) -> Vec<usize> {
    let rolling = judged.iter().filter(|j| is_rolling(j)).count();
    let mut waiting: Vec<usize> = (0..judged.len()).filter(|i| next_touch(&judged[*i], now).is_ok()).collect();
    waiting.sort_by_key(|i| &judged[*i].name);
    waiting.truncate(MAX_CONCURRENT.saturating_sub(rolling));
    waiting
}

/// Whether a Deployment rolls because we touched it.
pub fn is_rolling(judged: &Judged) -> bool {
    judged.standing == Standing::Current && judged.touch.is_some() && !judged.rollout.complete
}

/// Why a workload is not touched now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Its template is not to be changed.
    NotWanting,
    /// It is paused.
    Paused,
    /// It was repaired often enough for now; seconds until the next try.
    Exhausted(i64),
}

/// The value of the next touch.
pub fn next_touch(judged: &Judged, now: i64) -> Result<String, Rest> {
    let Standing::Wanting { hash, .. } = &judged.standing else { return Err(Rest::NotWanting) };
    if judged.paused {
        return Err(Rest::Paused);
    }
    match judged.touch.as_deref().and_then(parse) {
        Some((last, n, start)) if last == hash && (start..start + WINDOW).contains(&now) => match n {
            MAX_REPAIRS.. => Err(Rest::Exhausted(start + WINDOW - now)),
            _ => Ok(format!("{hash}/{}/{start}", n + 1)),
        },
        _ => Ok(format!("{hash}/1/{now}")),
    }
}

fn parse(touch: &str) -> Option<(&str, u32, i64)> {
    let mut parts = touch.split('/');
    let parsed = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::workload::{Rollout, Target};

    fn judged(name: &str, standing: Standing, touch: Option<&str>) -> Judged {
        Judged {
            name: name.into(),
            uid: name.into(),
            resource_version: "1".into(),
            owned: false,
            paused: false,
            wired: false,
            standing,
            rollout: Rollout::default(),
            experiment: Target::Unknown,
            notes: Vec::new(),
            touch: touch.map(str::to_owned),
            record: None,
            pods: String::new(),
            account: "default".into(),
        }
    }

    fn wanting(name: &str, touch: Option<&str>) -> Judged {
        judged(name, Standing::Wanting { hash: "abc".into(), patch: Vec::new() }, touch)
    }

    #[test]
    fn at_most_five_roll_at_a_time() {
        let mut all: Vec<_> = (0..9).map(|n| wanting(&format!("w{n}"), None)).collect();
        assert_eq!(due(&all, 0), [0, 1, 2, 3, 4]);
        all[0] = judged("w0", Standing::Current, Some("abc/1/0"));
        all[1] = judged("w1", Standing::Current, Some("abc/1/0"));
        assert_eq!(due(&all, 0), [2, 3, 4]);
        all[0].rollout.complete = true;
        assert_eq!(due(&all, 0), [2, 3, 4, 5]);
    }

    #[test]
    fn a_paused_deployment_waits() {
        let paused = Judged { paused: true, ..wanting("w", None) };
        assert_eq!(next_touch(&paused, 0), Err(Rest::Paused));
    }

    #[test]
    fn repairs_of_one_cause_are_counted_and_end() {
        assert_eq!(next_touch(&wanting("w", None), 1000).unwrap(), "abc/1/1000");
        assert_eq!(next_touch(&wanting("w", Some("abc/1/1000")), 1002).unwrap(), "abc/2/1000");
        assert_eq!(next_touch(&wanting("w", Some("abc/6/1000")), 1100), Err(Rest::Exhausted(500)));
        assert_eq!(next_touch(&wanting("w", Some("abc/6/1000")), 1600).unwrap(), "abc/1/1600");
        assert_eq!(next_touch(&wanting("w", Some("old/3/1000")), 1001).unwrap(), "abc/1/1001");
        assert_eq!(next_touch(&wanting("w", Some("what the user wrote")), 5).unwrap(), "abc/1/5");
    }
}
