//! What is known of an AgentTracing's experiments and traces, and what is to be asked next.

use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;

use super::experiments;
use super::questions::{Answer, Client, Question};
use super::searches::Searches;
use crate::controller::Guarded;
use crate::core::status::writes::Writes;
use crate::mlflow;

/// How long nothing is asked after a question that got no answer.
const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// How long it is not asked whether OTLP is taken after that failed.
const RETRY_OTLP: SignedDuration = SignedDuration::from_secs(60);
/// How often it is tried whether MLflow writes, while traces have stopped.
const TRIAL: SignedDuration = SignedDuration::from_secs(30);
/// The same once it did.
const TRIAL_WHEN_WELL: SignedDuration = SignedDuration::from_mins(5);

/// What is known, and what is wanted.
#[derive(Debug, Default)]
pub(super) struct State {
    pub client: Option<Client>,
    pub experiments: experiments::ExperimentCache,
    pub searches: Searches,
    /// Whether OTLP is taken, at which tracking URI.
    pub otlp: Option<(String, bool)>,
    /// The experiment by whose tag it is tried whether MLflow writes.
    pub trial_in: Option<String>,
    pub trial: Option<(Timestamp, Option<Writes>)>,
    /// The server has another database than before.
    pub anew: bool,
    /// An answer came that no pass has seen.
    pub news: bool,
    /// Nothing is asked before: the server does not answer.
    paused_until: Option<Timestamp>,
    /// When it may be asked again whether OTLP is taken.
    otlp_after: Option<Timestamp>,
    /// Questions that were not urgent: each class has its turn.
    turn: usize,
}

impl State {
    /// What is to be asked next, and of whom.
    pub(super) fn next(&self, urgent: bool, now: Timestamp) -> Option<(Client, Question)> {
        let client = self.client.as_ref().filter(|_| !self.is_paused(now))?;
        let question = match urgent {
            true => self
                .experiments
                .next(true, now)
                .or_else(|| self.searches.next(true, now))
                .or_else(|| self.otlp(client, now)),
            false => {
                let classes: [&dyn Fn() -> Option<Question>; 3] =
                    [&|| self.searches.next(false, now), &|| self.experiments.next(false, now), &|| self.trial(now)];
                (0..classes.len()).find_map(|n| classes[(self.turn + n) % classes.len()]())
            }
        };
        Some((client.clone(), question?))
    }

    fn otlp(&self, client: &Client, now: Timestamp) -> Option<Question> {
        let at = client.mlflow.tracking_uri();
        let is_unknown = client.asks_for_otlp && self.otlp.as_ref().is_none_or(|(of, _)| of != at);
        (is_unknown && self.otlp_after.is_none_or(|after| now >= after)).then_some(Question::Otlp)
    }

    fn is_paused(&self, now: Timestamp) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    fn trial(&self, now: Timestamp) -> Option<Question> {
        let id = self.trial_in.clone()?;
        let interval = |writes: &Option<Writes>| if *writes == Some(Writes::Taken) { TRIAL_WHEN_WELL } else { TRIAL };
        let is_due = self.trial.as_ref().is_none_or(|(at, writes)| now.duration_since(*at) >= interval(writes));
        is_due.then_some(Question::Trial(id))
    }

    /// Notes an answer. Says whether there is sense in asking the next question.
    pub(super) fn note(
        &mut self,
        question: Question,
        answer: Result<Answer, mlflow::Error>,
        now: Timestamp,
        tracing: &ObjectRef<Guarded>,
    ) -> bool {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%tracing, ?question, %error, "failed to ask MLflow; trying again");
                return self.note_failure(question, &error, now);
            }
        };
        self.turn = self.turn.wrapping_add(1);
        match (question, answer) {
            (Question::Otlp, Answer::Otlp(at, takes)) => {
                self.otlp = Some((at, takes));
                self.news = true;
            }
            (Question::Experiment(name), Answer::Experiment(found)) => {
                let noted = self.experiments.note(&name, found, now, tracing);
                if noted.anew {
                    (self.anew, self.trial) = (true, None);
                    self.searches.forget();
                }
                self.news |= noted.news || noted.anew;
                if !noted.goes_on {
                    self.paused_until = now.checked_add(RETRY).ok();
                }
                return noted.goes_on;
            }
            (Question::Deleted, Answer::Deleted(ids)) => self.news |= self.experiments.note_deleted(ids, now),
            (Question::Newest { ids, since }, Answer::Newest(rows)) => {
                self.news |= self.searches.note_newest(&ids, since.is_some(), rows, now);
            }
            (Question::Spans(id), Answer::Spans(trace)) => self.news |= self.searches.note_spans(&id, trace, now),
            (Question::Rhythm(id), Answer::Rhythm(times)) => self.news |= self.searches.note_rhythm(&id, &times, now),
            (Question::Trial(id), Answer::Trial(answer)) => {
                if let Err(error) = &answer {
                    tracing::warn!(%tracing, id, %error, "MLflow does not take a write by way of trial");
                }
                let writes = writes(&answer);
                self.news |= self.trial.as_ref().is_none_or(|(_, before)| *before != writes);
                self.trial = Some((now, writes));
            }
            _ => {}
        }
        true
    }

    /// Notes that a question failed. One that fails by itself keeps no other from being asked; a server that does not answer is
    /// left alone for a while.
    fn note_failure(&mut self, question: Question, error: &mlflow::Error, now: Timestamp) -> bool {
        use mlflow::Error as E;
        self.turn = self.turn.wrapping_add(1);
        match &question {
            Question::Deleted => _ = self.experiments.note_deleted(Vec::new(), now),
            Question::Otlp => self.otlp_after = now.checked_add(RETRY_OTLP).ok(),
            Question::Newest { ids, .. } => self.searches.note_failure(ids, now),
            Question::Spans(id) => self.searches.put_off_spans(id),
            Question::Rhythm(id) => _ = self.searches.note_rhythm(id, &[], now),
            Question::Experiment(_) | Question::Trial(_) => {}
        }
        let answers = !matches!(
            error,
            E::Client(_)
                | E::Dns(_)
                | E::Refused(_)
                | E::Timeout
                | E::Tls(_)
                | E::Connection(_)
                | E::Unauthorized
                | E::Mesh
        );
        if !answers {
            self.paused_until = now.checked_add(RETRY).ok();
        }
        answers
    }
}

/// What an answer to a write says of the server. A refusal of ourselves says nothing of what agents write.
pub(super) fn writes<T>(answer: &Result<T, mlflow::Error>) -> Option<Writes> {
    match answer {
        Ok(_) => Some(Writes::Taken),
        Err(mlflow::Error::StorageFull { .. }) => Some(Writes::Full),
        Err(error @ mlflow::Error::Server { status: 500.., .. }) => Some(Writes::Refused(error.to_string())),
        Err(error @ mlflow::Error::Rejected { code: Some(code), .. }) if code == experiments::UNKNOWN_TROUBLE => {
            Some(Writes::Refused(error.to_string()))
        }
        Err(_) => None,
    }
}
