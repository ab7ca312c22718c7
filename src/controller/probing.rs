//! What is asked of MLflow servers, calmly: one prober for each server, whoever names it, and a gate before each, so that a
//! server that is slow is asked less, and one that hangs delays nobody but those who use it.

use std::time::Duration;

mod gate;
mod prober;
mod tasks;
mod wakeups;

pub(super) use gate::{Gate, Gates};
pub(super) use prober::{Answer, Located, Lookup, Servers};
pub(super) use tasks::Tasks;
pub(super) use wakeups::Wakeups;

/// How long a pass waits for answers. A server that hangs must not hold up those who use another one.
pub(super) const PATIENCE: Duration = Duration::from_millis(1500);
