//! A place at MLflow for what an agent waits for: of the same few as those of what is forwarded.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::forward::Forwarder;

/// It is given back when this is dropped.
#[derive(Debug)]
pub struct AskingPlace(Arc<Forwarder>);

/// Somebody waits for a place until this is dropped.
struct Wish<'f> {
    forwarder: &'f Forwarder,
    is_granted: bool,
}

impl Forwarder {
    /// A place, as soon as one is free; `None` after a while.
    pub async fn asking_place(self: &Arc<Self>) -> Option<AskingPlace> {
        self.lanes().want_to_ask();
        let mut wish = Wish { forwarder: self, is_granted: false };
        let granted = async {
            loop {
                let mut freed = pin!(self.freed.notified());
                freed.as_mut().enable();
                let goes = self.lanes().take_to_ask(self.now());
                if goes {
                    return;
                }
                // Or it is the others' turn.
                self.wake.notify_one();
                freed.await;
            }
        };
        timeout(PATIENCE, granted).await.ok()?;
        wish.is_granted = true;
        Some(AskingPlace(self.clone()))
    }
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        if !self.is_granted {
            self.forwarder.lanes().give_up_asking();
            self.forwarder.wake.notify_one();
        }
    }
}

impl Drop for AskingPlace {
    fn drop(&mut self) {
        self.0.lanes().asked();
        self.0.wake.notify_one();
        self.0.freed.notify_waiters();
    }
}

/// Agents have five seconds, as the operator wires them.
const PATIENCE: Duration = Duration::from_secs(4);
