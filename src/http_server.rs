//! HTTP/1.1 over TLS or plain, for peers that may be slow, many or hostile.
//!
//! Why not a ready-made server: the API server keeps using its connections to a terminating pod (kubernetes#127335) and
//! does not repeat a POST that a closing connection swallowed, so every ending has to be announced with
//! `Connection: close` on an answer, never by hanging up on an idle connection.

pub mod listeners;
mod peer_timeout;
mod peers;
pub mod thread;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use self::peer_timeout::{BUSY, IDLE, PeerTimeout};
use self::peers::{Peer, Peers};

/// How far a server's end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// Serving.
    #[default]
    Open,
    /// Serving, and each answer asks the peer to go elsewhere with its next request.
    Announced,
    /// No new connections; those that are answering may finish.
    Closed,
}

/// What a peer may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait.
    pub connections: usize,
    /// Connections of one peer address at once; as many again wait, and more are cut off.
    pub per_peer: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time from a request's first byte to the end of its header, and from a connection's start to its first request.
    pub header: Duration,
    /// Time between two requests. Above the 90 s after which Go's HTTP client hangs up by itself: whoever hangs up
    /// first may swallow a request that is under way.
    pub idle: Duration,
    /// Age, ± 20 %, from which on answers ask for a new connection, so that load spreads over new replicas.
    pub age: Duration,
    /// Time for the requests in flight at the end.
    pub finish: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connections: 256,
            // The API server is one peer, with a connection for each review at a time: with 32, rolling restarts under load left
            // 8,394 of 21,007 objects unwired. A quarter stays for others.
            per_peer: 192,
            handshake: seconds(5),
            header: seconds(5),
            idle: seconds(120),
            age: seconds(300),
            finish: seconds(5),
        }
    }
}

/// The TLS configuration to use for new connections; none yet: connections wait.
pub type Tls = watch::Receiver<Option<Arc<ServerConfig>>>;

/// Serves until [`Drain::Closed`] and the requests in flight are answered.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    limits: Limits,
    drain: watch::Receiver<Drain>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let arrivals = Arc::new(Semaphore::new(limits.connections * ARRIVALS));
    let peers = Peers::new(limits.per_peer);
    let mut connections = JoinSet::new();
    let mut closing = pin!(closed(drain.clone()));
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let arrival = arrivals.clone().acquire_owned().await;
            (arrival, listener.accept().await)
        };
        let (arrival, stream, address) = tokio::select! {
            biased;
            () = &mut closing => break,
            (arrival, accepted) = accepted => match accepted {
                Ok((stream, address)) => (arrival, stream, address),
                Err(error) => {
                    // Out of file descriptors, most likely: others must close first.
                    tracing::warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(peer) = peers.arrive(address.ip()) else { continue };
        let (tls, router) = (tls.clone(), router.clone());
        let ends = Ends { limits, slots: slots.clone(), drain: drain.clone() };
        connections.spawn(async move {
            // Both are kept to the connection's end.
            let (_arrival, peer) = (arrival, peer);
            if let Err(error) = connection(stream, &peer, tls, router, ends).await {
                tracing::debug!(%error, "a connection failed");
            }
        });
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.finish, rest).await.is_err() {
        tracing::warn!("ended before every request was answered");
    }
}

/// What decides when a connection ends.
struct Ends {
    limits: Limits,
    slots: Arc<Semaphore>,
    drain: watch::Receiver<Drain>,
}

impl Ends {
    /// Whether an answer asks for a new connection. Where places are short every one does: whoever keeps a connection and
    /// asks nothing takes at most three quarters of them, and the rest are free again as soon as they were answered.
    fn announced(&self, old_from: Instant) -> bool {
        let crowded = self.slots.available_permits() < self.limits.connections / 4;
        crowded || *self.drain.borrow() >= Drain::Announced || Instant::now() >= old_from
    }
}

async fn connection(stream: TcpStream, peer: &Peer, tls: Option<Tls>, router: Router, ends: Ends) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let _place = timeout(ends.limits.handshake, peer.places.acquire()).await.map_err(late)?;
    let slots = ends.slots.clone();
    let slot = || timeout(ends.limits.header, slots.acquire());
    let Some(mut tls) = tls else {
        let _slot = slot().await.map_err(late)?;
        return http(stream, router, ends).await;
    };
    let handshake = async {
        let config = tls.wait_for(Option::is_some).await.ok().and_then(|config| config.clone());
        let config = config.ok_or(io::ErrorKind::NotConnected)?;
        TlsAcceptor::from(config).accept(stream).await
    };
    // A place is for those that have shown that they mean it: unfinished handshakes take none.
    let stream = timeout(ends.limits.handshake, handshake).await.map_err(late)??;
    let _slot = slot().await.map_err(late)?;
    http(stream, router, ends).await
}

async fn http<S>(stream: S, router: Router, ends: Ends) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = ends.limits;
    let stream = PeerTimeout::new(stream, limits.header, limits.idle);
    let state = stream.state();
    let old_from = Instant::now() + limits.age.mul_f64(0.8 + 0.4 * chance());
    let answers = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        state.store(BUSY, Ordering::Relaxed);
        let answer = hyper::service::Service::call(&answers, request.map(Body::new));
        async {
            let mut response = answer.await?;
            state.store(IDLE, Ordering::Relaxed);
            if ends.announced(old_from) {
                response.headers_mut().insert(header::CONNECTION, CLOSE);
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            // No timer: hyper's limit makes one for each header, and ours makes one for each connection.
            .max_buf_size(BUFFER)
            // A peer may say that nothing more comes and still listen.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closed(ends.drain.clone()) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(io::Error::other)
}

async fn closed(mut drain: watch::Receiver<Drain>) {
    // An error means that the sender is gone: nothing would ever announce the end, so close now.
    let _ = drain.wait_for(|drain| *drain == Drain::Closed).await;
}

/// From 0 to 1; for spreading, not for secrets.
fn chance() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

/// Bounds what 256 connections can make us buffer: hyper's own limit is 400 KiB each.
const BUFFER: usize = 64 << 10;
const CLOSE: HeaderValue = HeaderValue::from_static("close");
/// Connections that may be there for each that is served: shaking hands, or waiting for a place.
const ARRIVALS: usize = 4;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
