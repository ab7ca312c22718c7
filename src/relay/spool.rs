//! What is held, on the relay's volume: an embedded, crash-safe store. A request is in it when [`Spool::put`] has returned, whatever
//! happens to the process, the node or the power then.
//!
//! One thread writes, in groups: all that waits for it goes into one transaction, so that a write to the disk serves many requests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use redb::backends::InMemoryBackend;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};
use tokio::sync::oneshot;

use crate::core::relay::lanes::{LaneId, Queue};

/// Lane, queue, number. Numbers grow, so the first one of a queue came first.
type Key = (u64, u8, u64);

/// By key: the request as it came.
const REQUESTS: TableDefinition<Key, &[u8]> = TableDefinition::new("requests");
/// By key: its length. Small, so that the start need not read all requests.
const LENGTHS: TableDefinition<Key, u64> = TableDefinition::new("lengths");
/// A lane's name, and its number.
const LANES: TableDefinition<&str, u64> = TableDefinition::new("lanes");

/// Where a request is in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Its lane.
    pub lane: LaneId,
    /// Its queue.
    pub queue: Queue,
    /// Its place there.
    pub number: u64,
    length: u64,
}

/// A store of requests.
#[derive(Debug)]
pub struct Spool {
    database: Arc<Database>,
    /// There until the end.
    orders: Option<Sender<Order>>,
    writer: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    lanes: Mutex<BTreeMap<String, LaneId>>,
    limit: u64,
}

#[derive(Debug, Default)]
struct Shared {
    /// Of requests that are in the spool or on their way into it.
    bytes: AtomicU64,
    number: AtomicU64,
}

/// Why the spool cannot be had, or does not take a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It holds as much as it may.
    #[error("the spool is full: it holds {bytes} of {limit} bytes")]
    Full {
        /// What it holds.
        bytes: u64,
        /// What it may hold.
        limit: u64,
    },
    /// More workloads and experiments than it keeps apart.
    #[error("the spool keeps {MAX_LANES} workloads and experiments apart, and this one is more")]
    TooManyLanes,
    /// The disk fails.
    #[error("the spool on the disk fails")]
    Store(#[source] Arc<redb::Error>),
    /// Its thread ended.
    #[error("the spool's thread ended")]
    Ended,
}

struct Order {
    change: Change,
    done: oneshot::Sender<Result<(), Arc<redb::Error>>>,
}

enum Change {
    Lane(String, LaneId),
    Put(Key, Bytes),
    Delete(Key),
    Move(Vec<(Key, Key)>),
}

/// What a spool holds at its start.
#[derive(Debug)]
pub struct Found {
    /// The lane's name.
    pub name: String,
    /// Its number.
    pub lane: LaneId,
    /// Its queue.
    pub queue: Queue,
    /// How many requests.
    pub count: u64,
}

impl Spool {
    /// Opens the spool in a file, or makes it; without a file one in memory. It holds so many bytes of requests at most.
    pub fn open(file: Option<&Path>, limit: u64) -> Result<(Self, Vec<Found>), redb::Error> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE);
        let database = Arc::new(match file {
            Some(file) => builder.create(file)?,
            None => builder.create_with_backend(InMemoryBackend::new())?,
        });
        let start = database.begin_write()?;
        start.open_table(REQUESTS)?;
        start.open_table(LENGTHS)?;
        start.open_table(LANES)?;
        start.commit()?;
        let shared = Arc::new(Shared::default());
        // For what they waited comes no more, or after them.
        commit(&database, vec![Change::Move(waiting(&database)?)])?;
        let (lanes, found) = inventory(&database, &shared)?;
        let (orders, receiver) = channel();
        let writer = database.clone();
        let writer = thread::Builder::new().name("spool".to_owned()).spawn(move || write(&writer, &receiver));
        let (orders, writer) = (Some(orders), Some(writer.map_err(redb::Error::Io)?));
        Ok((Self { database, orders, writer, shared, lanes: Mutex::new(lanes), limit }, found))
    }

    /// The number of a lane.
    pub async fn lane(&self, name: &str) -> Result<LaneId, Error> {
        let id = {
            let mut lanes = self.lanes();
            if let Some(id) = lanes.get(name) {
                return Ok(*id);
            }
            if lanes.len() >= MAX_LANES {
                return Err(Error::TooManyLanes);
            }
            let id = lanes.values().max().map_or(1, |last| last + 1);
            lanes.insert(name.to_owned(), id);
            id
        };
        // Written before the first request of the lane, for the orders are carried out in their order.
        self.order(Change::Lane(name.to_owned(), id)).await?;
        Ok(id)
    }

    /// The name of a lane.
    pub fn name(&self, id: LaneId) -> Option<String> {
        self.lanes().iter().find(|(_, other)| **other == id).map(|(name, _)| name.clone())
    }

    /// A place behind all that were given before.
    pub fn reserve(&self) -> u64 {
        self.shared.number.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts a request at a place of a lane. When this returns it is on the disk.
    pub async fn put(&self, lane: LaneId, queue: Queue, number: u64, request: Bytes) -> Result<Ticket, Error> {
        let length = request.len() as u64;
        let bytes = self.shared.bytes.fetch_add(length + OVERHEAD, Ordering::Relaxed);
        if bytes + length + OVERHEAD > self.limit {
            self.release(length);
            return Err(Error::Full { bytes, limit: self.limit });
        }
        let ticket = Ticket { lane, queue, number, length };
        let put = self.order(Change::Put(ticket.key(), request)).await;
        if put.is_err() {
            self.release(length);
        }
        put.map(|()| ticket)
    }

    /// The first request of a queue of a lane, from this place on.
    pub async fn first(&self, lane: LaneId, queue: Queue, from: u64) -> Result<Option<(Ticket, Bytes)>, Error> {
        let database = self.database.clone();
        let read = move || -> Result<_, redb::Error> {
            let requests = database.begin_read()?.open_table(REQUESTS)?;
            let code = code(queue);
            let Some(first) = requests.range((lane, code, from)..=(lane, code, u64::MAX))?.next() else {
                return Ok(None);
            };
            let (key, request) = first?;
            let request = Bytes::copy_from_slice(request.value());
            Ok(Some((Ticket { lane, queue, number: key.value().2, length: request.len() as u64 }, request)))
        };
        let read = tokio::task::spawn_blocking(read).await.map_err(|_| Error::Ended)?;
        read.map_err(|error| Error::Store(Arc::new(error)))
    }

    /// Shows each request that is set aside, by lane and place.
    pub fn each_aside(&self, mut show: impl FnMut(LaneId, u64, Bytes)) -> Result<(), redb::Error> {
        let read = self.database.begin_read()?;
        let requests = read.open_table(REQUESTS)?;
        for entry in read.open_table(LENGTHS)?.iter()? {
            let (lane, queue, number) = entry?.0.value();
            if queue == code(Queue::Aside)
                && let Some(request) = requests.get((lane, queue, number))?
            {
                show(lane, number, Bytes::copy_from_slice(request.value()));
            }
        }
        Ok(())
    }

    /// Takes a request out.
    pub async fn delete(&self, ticket: Ticket) -> Result<(), Error> {
        self.order(Change::Delete(ticket.key())).await?;
        self.release(ticket.length);
        Ok(())
    }

    /// Puts a request aside, so that those behind it go on.
    pub async fn set_aside(&self, ticket: Ticket) -> Result<Ticket, Error> {
        let aside = Ticket { queue: Queue::Aside, ..ticket };
        self.order(Change::Move(vec![(ticket.key(), aside.key())])).await?;
        Ok(aside)
    }

    /// Puts requests that waited at the end of this lane, else of their own, in this order, before all that are put there later. Where
    /// they are then comes with it.
    pub async fn line_up(&self, waiting: &[Ticket], lane: Option<LaneId>) -> Result<Vec<LaneId>, Error> {
        let moves = waiting.iter().map(|ticket| {
            let end =
                Ticket { lane: lane.unwrap_or(ticket.lane), queue: Queue::Ready, number: self.reserve(), ..*ticket };
            (ticket.key(), end.key())
        });
        let moves: Vec<_> = moves.collect();
        let lanes = moves.iter().map(|(_, (lane, ..))| *lane).collect();
        self.order(Change::Move(moves)).await?;
        Ok(lanes)
    }

    /// The names of all lanes.
    pub fn names(&self) -> Vec<String> {
        self.lanes().keys().cloned().collect()
    }

    /// Bytes of requests, and how many it may hold.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.bytes.load(Ordering::Relaxed), self.limit)
    }

    async fn order(&self, change: Change) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let orders = self.orders.as_ref().ok_or(Error::Ended)?;
        orders.send(Order { change, done }).map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)?.map_err(Error::Store)
    }

    fn release(&self, length: u64) {
        self.shared.bytes.fetch_sub(length + OVERHEAD, Ordering::Relaxed);
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<String, LaneId>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file is closed when this is over.
impl Drop for Spool {
    fn drop(&mut self) {
        drop(self.orders.take());
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the spool's thread panicked");
        }
    }
}

impl Ticket {
    fn key(self) -> Key {
        (self.lane, code(self.queue), self.number)
    }
}

fn code(queue: Queue) -> u8 {
    match queue {
        Queue::Ready => 0,
        Queue::Aside => 1,
        Queue::Waiting => 2,
    }
}

/// What waited when the process ended, and its place at the end of its lane.
fn waiting(database: &Database) -> Result<Vec<(Key, Key)>, redb::Error> {
    let (mut waiting, mut last) = (Vec::new(), 0);
    for entry in database.begin_read()?.open_table(LENGTHS)?.iter()? {
        let key = entry?.0.value();
        last = last.max(key.2);
        if key.1 == code(Queue::Waiting) {
            waiting.push(key);
        }
    }
    waiting.sort_by_key(|(_, _, number)| *number);
    let line_up = |((lane, _, number), end)| ((lane, code(Queue::Waiting), number), (lane, code(Queue::Ready), end));
    Ok(waiting.into_iter().zip(last + 1..).map(line_up).collect())
}

/// What is there, and what the counters start with.
fn inventory(database: &Database, shared: &Shared) -> Result<(BTreeMap<String, LaneId>, Vec<Found>), redb::Error> {
    let read = database.begin_read()?;
    let mut lanes = BTreeMap::new();
    for lane in read.open_table(LANES)?.iter()? {
        let (name, id) = lane?;
        lanes.insert(name.value().to_owned(), id.value());
    }
    let mut counts: BTreeMap<(LaneId, u8), u64> = BTreeMap::new();
    let (mut bytes, mut last) = (0, 0);
    for entry in read.open_table(LENGTHS)?.iter()? {
        let (key, length) = entry?;
        let (lane, queue, number) = key.value();
        *counts.entry((lane, queue)).or_default() += 1;
        (bytes, last) = (bytes + length.value() + OVERHEAD, last.max(number));
    }
    shared.bytes.store(bytes, Ordering::Relaxed);
    shared.number.store(last + 1, Ordering::Relaxed);
    let names: BTreeMap<LaneId, &String> = lanes.iter().map(|(name, id)| (*id, name)).collect();
    let found = counts.into_iter().filter_map(|((lane, code), count)| {
        let queue = if code == 1 { Queue::Aside } else { Queue::Ready };
        Some(Found { name: (*names.get(&lane)?).clone(), lane, queue, count })
    });
    let found = found.collect();
    Ok((lanes, found))
}

/// Carries out orders, all that wait in one transaction, until nobody is left to give any.
fn write(database: &Database, orders: &Receiver<Order>) {
    while let Ok(first) = orders.recv() {
        let group: Vec<_> = [first].into_iter().chain(orders.try_iter().take(GROUP - 1)).collect();
        let (changes, waiting): (Vec<_>, Vec<_>) = group.into_iter().map(|order| (order.change, order.done)).unzip();
        let committed = commit(database, changes).map_err(Arc::new);
        if let Err(error) = &committed {
            tracing::error!(error = %crate::telemetry::error_chain(error.as_ref()), "failed to write to the spool");
        }
        for done in waiting {
            // Whoever has gone away meanwhile does not want to know.
            let _ = done.send(committed.clone());
        }
    }
}

fn commit(database: &Database, changes: Vec<Change>) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut requests = transaction.open_table(REQUESTS)?;
        let mut lengths = transaction.open_table(LENGTHS)?;
        let mut lanes = transaction.open_table(LANES)?;
        for change in changes {
            match change {
                Change::Lane(name, id) => _ = lanes.insert(name.as_str(), id)?,
                Change::Put(key, request) => {
                    requests.insert(key, request.as_ref())?;
                    lengths.insert(key, request.len() as u64)?;
                }
                Change::Delete(key) => {
                    requests.remove(key)?;
                    lengths.remove(key)?;
                }
                Change::Move(moves) => {
                    for (from, to) in moves {
                        move_request(&mut requests, &mut lengths, from, to)?;
                    }
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn move_request(
    requests: &mut Table<'_, Key, &'static [u8]>,
    lengths: &mut Table<'_, Key, u64>,
    from: Key,
    to: Key,
) -> Result<(), redb::Error> {
    let request = requests.remove(from)?.map(|request| request.value().to_vec());
    lengths.remove(from)?;
    if let Some(request) = request {
        requests.insert(to, request.as_slice())?;
        lengths.insert(to, request.len() as u64)?;
    }
    Ok(())
}

/// Requests whose fate one transaction decides, at most.
const GROUP: usize = 256;
/// Of pages of the file.
const CACHE: usize = 4 << 20;
/// What a request takes in the file besides itself.
const OVERHEAD: u64 = 128;
const MAX_LANES: usize = 10_000;

#[cfg(test)]
mod tests;
