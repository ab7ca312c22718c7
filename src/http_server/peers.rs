//! How many connections each peer address has: one that opens many must not keep the API server out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// The peers that are connected now.
pub(super) struct Peers {
    most: usize,
    connected: Mutex<HashMap<IpAddr, Connected>>,
}

struct Connected {
    count: usize,
    places: Arc<Semaphore>,
}

/// One connection of a peer; it counts until it is dropped.
pub(super) struct Peer {
    peers: Arc<Peers>,
    address: IpAddr,
    /// What this peer may have at a time.
    pub(super) places: Arc<Semaphore>,
}

impl Peers {
    /// Peers that each may have so many connections at a time.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, connected: Mutex::default() })
    }

    /// A connection more; as many again as may be served may wait, and nothing comes back for one beyond that. A busy API
    /// server waits for a moment and is not turned away: its request would go unanswered.
    pub(super) fn arrive(self: &Arc<Self>, address: IpAddr) -> Option<Peer> {
        // One family: a socket for both shows 10.0.0.1 as ::ffff:10.0.0.1.
        let address = address.to_canonical();
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let places = || Arc::new(Semaphore::new(self.most));
        let peer = connected.entry(address).or_insert_with(|| Connected { count: 0, places: places() });
        if peer.count >= 2 * self.most {
            return None;
        }
        peer.count += 1;
        Some(Peer { peers: self.clone(), address, places: peer.places.clone() })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut connected = self.peers.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = connected.get_mut(&self.address) {
            peer.count -= 1;
            if peer.count == 0 {
                connected.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_counted_by_its_address_in_either_family_and_forgotten_when_it_is_gone() {
        let peers = Peers::new(2);
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        let mut kept: Vec<_> = (0..3).map(|_| peers.arrive(one).expect("a place or a wait")).collect();
        kept.push(peers.arrive("::ffff:10.0.0.1".parse().unwrap()).expect("the last wait"));
        assert!(peers.arrive(one).is_none());
        assert!(peers.arrive("10.0.0.2".parse().unwrap()).is_some(), "nobody else's business");
        kept.pop();
        assert!(peers.arrive(one).is_some());
        kept.clear();
        assert!(peers.connected.lock().unwrap().is_empty());
    }
}
