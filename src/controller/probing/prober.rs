//! Whether a server answers, and which MLflow it is: asked once for all that name its address, again every minute while it
//! answers, and with a back-off of its own while it does not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use super::{Gates, Tasks, Wakeups};
use crate::api::Reason;
use crate::controller::{Context, Guarded};
use crate::mlflow::{self, Http, MlflowClient};
use crate::telemetry::error_chain;

/// An answer that a pass takes for new. Nobody is wired to a server that stopped answering before.
const FRESH: Duration = Duration::from_secs(5);
/// How often a server that answers is asked.
const INTERVAL: Duration = Duration::from_secs(60);
/// How soon one that does not is asked again, by how often in a row it did not.
const BACK_OFF: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(15)];
/// An AgentTracing that has not asked for so long is gone, or has another server.
const FORGOTTEN: Duration = Duration::from_secs(1800);
/// How often it is looked whose turn it is.
const TICK: Duration = Duration::from_secs(1);

/// How a server is looked for at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::controller) enum Lookup {
    /// It is there.
    At,
    /// It is there or below: see [`MlflowClient::locate`].
    Below,
}

/// A server that answered.
#[derive(Clone, Debug)]
pub(in crate::controller) struct Located {
    pub client: MlflowClient,
    pub server: mlflow::ServerInfo,
}

/// The last answer.
#[derive(Clone, Debug)]
pub(in crate::controller) struct Answer {
    /// When it was given.
    at: Instant,
    /// Or why there was none.
    pub found: Result<Located, (Reason, String)>,
    /// When it was asked last: a server that answered and then does not once is asked again before that is believed.
    asked_at: Instant,
    /// Without an answer, in a row.
    failures: usize,
}

impl Answer {
    fn is_fresh(&self, patience: Duration) -> bool {
        self.failures == 0 && self.at.elapsed() < FRESH + patience
    }

    /// Whether it is that there was none, for the first time: a server that answered the process before may be busy.
    pub(in crate::controller) fn is_first_failure(&self) -> bool {
        self.failures == 1 && matches!(self.found, Err((Reason::Unreachable, _)))
    }

    /// Whether another one says something new.
    fn says_the_same_as(&self, other: &Self) -> bool {
        match (&self.found, &other.found) {
            (Ok(a), Ok(b)) => a.server == b.server && a.client.tracking_uri() == b.client.tracking_uri(),
            (Err(a), Err(b)) => a == b,
            _ => false,
        }
    }

    /// What follows when it was asked again. Of a server that answered one question without an answer says little: it may
    /// have been busy. What it is refused for counts at once.
    fn followed_by(self, found: Result<Located, (Reason, String)>, asked_at: Instant) -> Self {
        match &found {
            Ok(_) => Self { at: asked_at, found, asked_at, failures: 0 },
            Err((Reason::Unreachable, _)) if self.failures == 0 => Self { asked_at, failures: 1, ..self },
            Err(_) => Self { at: asked_at, found, asked_at, failures: self.failures + 1 },
        }
    }

    /// Whether it is to be asked again, where one that answers is asked so often.
    fn is_over(&self, interval: Duration) -> bool {
        let lasts = match self.failures {
            0 => interval,
            n => BACK_OFF.get(n - 1).copied().unwrap_or(BACK_OFF[BACK_OFF.len() - 1]),
        };
        self.asked_at.elapsed() >= lasts
    }
}

/// A server, whoever names it.
#[derive(Debug)]
struct Server {
    address: String,
    lookup: Lookup,
    known: Mutex<Known>,
    /// One question at a time.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    answer: Option<Answer>,
    users: HashMap<ObjectRef<Guarded>, Instant>,
}

/// All servers that some AgentTracing names.
#[derive(Debug)]
pub(in crate::controller) struct Servers {
    all: Mutex<HashMap<(String, Lookup), Arc<Server>>>,
    pub gates: Gates,
    /// How long a pass waits for an answer.
    pub patience: Duration,
    wakeups: Arc<Wakeups>,
    tasks: Tasks,
}

impl Servers {
    pub(in crate::controller) fn new(wakeups: Arc<Wakeups>, patience: Duration) -> Self {
        Self { all: Mutex::default(), gates: Gates::default(), patience, wakeups, tasks: Tasks::default() }
    }

    /// What the server at an address answers now; the last that is known where it takes long, and nothing where it never
    /// answered in time: the AgentTracing is woken when it does.
    pub(in crate::controller) async fn answer(
        &self,
        http: &Http,
        address: &str,
        lookup: Lookup,
        tracing: &ObjectRef<Guarded>,
    ) -> Option<Answer> {
        let server = self.used(address, lookup, tracing);
        let known = server.known().answer.clone();
        if let Some(answer) = known.filter(|answer| !answer.is_over(FRESH)) {
            return Some(answer);
        }
        // It goes on when this pass has waited enough, and whoever waits for it is woken.
        self.tasks.spawn_and_wait(self.ask(&server, http), self.patience).await;
        server.known().answer.clone()
    }

    /// An AgentTracing has named all its servers since that moment. Others are none of its concern any more.
    pub(in crate::controller) fn leave_others(&self, tracing: &ObjectRef<Guarded>, since: Instant) {
        self.all().retain(|_, server| {
            let mut known = server.known();
            known.users.retain(|user, at| user != tracing || *at >= since);
            !known.users.is_empty()
        });
    }

    /// Whether a server that an AgentTracing names answers now, or it names none that may be asked. No agent is changed on the
    /// strength of an older answer.
    pub(in crate::controller) fn answer_now(&self, tracing: &ObjectRef<Guarded>) -> bool {
        let mut names_any = false;
        for server in self.all().values() {
            let known = server.known();
            if known.users.contains_key(tracing) {
                names_any = true;
                if known.answer.as_ref().is_some_and(|answer| answer.found.is_ok() && answer.is_fresh(self.patience)) {
                    return true;
                }
            }
        }
        !names_any
    }

    /// Asks again soon: somebody got no answer.
    pub(in crate::controller) fn suspect(&self, url: &str) {
        for server in self.all().values().filter(|server| url.starts_with(&server.address)) {
            if let Some(answer) = &mut server.known().answer
                && answer.found.is_ok()
                && answer.failures == 0
                && let Some(before) = answer.at.checked_sub(INTERVAL)
            {
                (answer.at, answer.asked_at) = (before, before);
            }
        }
    }

    /// Asks each server again when its turn has come, for ever.
    pub(in crate::controller) async fn run(&self, ctx: &Context) {
        loop {
            tokio::time::sleep(TICK).await;
            let due = self.due();
            if due.is_empty() {
                continue;
            }
            let http = match ctx.http() {
                Ok(http) => http,
                Err(error) => {
                    tracing::warn!(error = error_chain(&error), "failed to make a client of MLflow servers");
                    continue;
                }
            };
            for server in due {
                self.tasks.spawn(self.ask(&server, &http));
            }
        }
    }

    /// For tests: servers are asked anew, and what they say then is believed.
    #[cfg(test)]
    pub(in crate::controller) fn age(&self) {
        for server in self.all().values() {
            if let Some(answer) = &mut server.known().answer {
                answer.failures = answer.failures.max(1);
                answer.asked_at -= INTERVAL;
            }
        }
    }

    fn due(&self) -> Vec<Arc<Server>> {
        let mut all = self.all();
        all.retain(|_, server| {
            let mut known = server.known();
            known.users.retain(|_, at| at.elapsed() < FORGOTTEN);
            !known.users.is_empty()
        });
        let is_due = |server: &&Arc<Server>| {
            let known = server.known();
            server.asking.try_lock().is_ok() && known.answer.as_ref().is_none_or(|answer| answer.is_over(INTERVAL))
        };
        all.values().filter(is_due).cloned().collect()
    }

    /// Asks; whoever comes while it is asked waits for the same answer.
    fn ask(&self, server: &Arc<Server>, http: &Http) -> impl Future<Output = ()> + Send + 'static {
        let (server, http, wakeups) = (server.clone(), http.clone(), self.wakeups.clone());
        async move {
            let asked_at = Instant::now();
            let _one = server.asking.lock().await;
            if server.known().answer.as_ref().is_some_and(|answer| answer.asked_at >= asked_at) {
                return;
            }
            let found = server.locate(&http).await;
            let found = found.map_err(|error| (reason(&error), error.to_string()));
            server.publish(found, &wakeups);
        }
    }

    /// The server at an address, which an AgentTracing names.
    fn used(&self, address: &str, lookup: Lookup, tracing: &ObjectRef<Guarded>) -> Arc<Server> {
        let new = || {
            let (known, asking) = Default::default();
            Arc::new(Server { address: address.to_owned(), lookup, known, asking })
        };
        let mut all = self.all();
        let server = all.entry((address.to_owned(), lookup)).or_insert_with(new);
        server.known().users.insert(tracing.clone(), Instant::now());
        server.clone()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(String, Lookup), Arc<Server>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    async fn locate(&self, http: &Http) -> Result<Located, mlflow::Error> {
        let (client, server) = match self.lookup {
            Lookup::At => {
                let client = MlflowClient::new(http, &self.address);
                let server = client.server().await?;
                (client, server)
            }
            Lookup::Below => MlflowClient::locate(http, &self.address).await?,
        };
        Ok(Located { client, server })
    }

    fn publish(&self, found: Result<Located, (Reason, String)>, wakeups: &Wakeups) {
        let mut known = self.known();
        let now = Instant::now();
        let before = known.answer.take();
        let answer = match before.clone() {
            Some(before) => before.followed_by(found, now),
            None => Answer { at: now, failures: usize::from(found.is_err()), found, asked_at: now },
        };
        if !before.is_some_and(|before| before.says_the_same_as(&answer)) {
            known.users.keys().cloned().for_each(|tracing| wakeups.add(tracing));
        }
        known.answer = Some(answer);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason(error: &mlflow::Error) -> Reason {
    use mlflow::Error as E;
    match error {
        E::Client(_) | E::Dns(_) | E::Refused(_) | E::Timeout | E::Connection(_) | E::Server { .. } => {
            Reason::Unreachable
        }
        E::StorageFull { .. } => Reason::StorageFull,
        E::Tls(_) => Reason::TLSUntrusted,
        E::HostHeader => Reason::HostHeaderRejected,
        E::Unauthorized | E::Forbidden(_) | E::Mesh => Reason::Unauthorized,
        E::LoginPage => Reason::LoginPage,
        E::NotFound(_) | E::NoWorkspace | E::Garbage | E::Rejected { .. } => Reason::WrongPath,
        E::TooOld(_) => Reason::VersionTooOld,
    }
}

#[cfg(test)]
mod tests {
    use super::super::PATIENCE;
    use super::*;

    fn unreachable() -> (Reason, String) {
        (Reason::Unreachable, "no answer within 3 s".to_owned())
    }

    fn answered() -> Answer {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = Http::with(reqwest::Client::builder().tls_certs_only([])).unwrap();
        let server = mlflow::ServerInfo { version: "3.10.1".to_owned(), workspaces: false };
        let found = Ok(Located { client: MlflowClient::new(&http, "http://mlflow.example.com"), server });
        let at = Instant::now();
        Answer { at, found, asked_at: at, failures: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_without_an_answer_is_asked_again_before_it_is_believed() {
        let before = answered();
        let once = before.clone().followed_by(Err(unreachable()), Instant::now());
        assert!(once.found.is_ok() && once.says_the_same_as(&before));
        assert!(before.is_fresh(PATIENCE) && !once.is_fresh(PATIENCE), "no agent is changed on the strength of it");
        assert!(!once.is_over(FRESH));
        tokio::time::advance(BACK_OFF[0]).await;
        assert!(once.is_over(INTERVAL));
        let twice = once.clone().followed_by(Err(unreachable()), Instant::now());
        assert_eq!(twice.found.as_ref().unwrap_err().0, Reason::Unreachable);
        let again = once.followed_by(before.found, Instant::now());
        assert!(again.found.is_ok() && again.failures == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_says_of_itself_counts_at_once() {
        let refused = (Reason::Unauthorized, "it wants a token".to_owned());
        let answer = answered().followed_by(Err(refused.clone()), Instant::now());
        assert_eq!(answer.found.unwrap_err(), refused);
    }
}
