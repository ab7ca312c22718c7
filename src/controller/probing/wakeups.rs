//! AgentTracings that are to be looked at because something that is asked beside the passes has changed.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;

use crate::controller::Guarded;

/// Each AgentTracing once, however often it is named: there are never more than AgentTracings.
#[derive(Debug, Default)]
pub(in crate::controller) struct Wakeups {
    due: Mutex<HashSet<ObjectRef<Guarded>>>,
    added: Notify,
}

impl Wakeups {
    pub(in crate::controller) fn add(&self, tracing: ObjectRef<Guarded>) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).insert(tracing);
        self.added.notify_one();
    }

    /// One of those that are named, as soon as there is one.
    pub(in crate::controller) async fn next(&self) -> ObjectRef<Guarded> {
        loop {
            let first = {
                let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
                let first = due.iter().next().cloned();
                first.inspect(|first| _ = due.remove(first))
            };
            match first {
                Some(first) => return first,
                None => self.added.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn each_is_named_once_and_nobody_is_forgotten() {
        let wakeups = Wakeups::default();
        let tracing = |name: &str| ObjectRef::new(name).within("bank");
        for name in ["a", "b", "a"] {
            wakeups.add(tracing(name));
        }
        let mut first = [wakeups.next().await, wakeups.next().await];
        first.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(first, [tracing("a"), tracing("b")]);
        assert!(wakeups.next().now_or_never().is_none());
        wakeups.add(tracing("a"));
        assert_eq!(wakeups.next().await, tracing("a"));
    }
}
