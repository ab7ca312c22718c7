//! What is known of an AgentTracing's experiments and traces, and what is to be asked next.

use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;

use super::experiments;
use super::questions::{Answer, AskError, Client, OtlpSupport, Question, writes};
use super::searches::Searches;
use crate::controller::Guarded;
use crate::core::status::writes::Writes;
use crate::mlflow;
use crate::telemetry::error_chain;

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
    otlp: Option<OtlpSupport>,
    /// The experiment by whose tag it is tried whether MLflow writes.
    trial_in: Option<String>,
    trial: Option<Trial>,
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

/// What came of trying whether MLflow writes.
#[derive(Debug)]
struct Trial {
    /// When; `None` where the process before did.
    at: Option<Timestamp>,
    writes: Option<Writes>,
}

impl Trial {
    fn is_due(&self, now: Timestamp) -> bool {
        let interval = if self.writes == Some(Writes::Taken) { TRIAL_WHEN_WELL } else { TRIAL };
        self.at.is_none_or(|at| now.duration_since(at) >= interval)
    }
}

impl State {
    /// What a new process begins with, where the status says what MLflow did with the last write.
    pub(super) fn after_restart(writes: Option<Writes>) -> Self {
        Self { trial: writes.map(|writes| Trial { at: None, writes: Some(writes) }), ..Self::default() }
    }

    /// Sets whether traces have stopped, and by which experiment it is tried then whether MLflow writes: nobody knows of one as long
    /// as MLflow does not answer.
    pub(super) fn set_trial(&mut self, have_stopped: bool, experiment: Option<String>) {
        self.trial.take_if(|_| !have_stopped);
        self.trial_in = experiment;
    }

    /// Whether MLflow writes, where something showed it.
    pub(super) fn writes(&self) -> Option<Writes> {
        self.experiments.writes().or_else(|| self.trial.as_ref()?.writes.clone())
    }

    /// Whether OTLP is taken by the server that is asked now.
    pub(super) fn takes_otlp(&self) -> Option<bool> {
        let client = self.client.as_ref()?;
        self.otlp.as_ref().filter(|otlp| otlp.is_of(client)).map(|otlp| otlp.is_taken)
    }

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
        let is_unknown = client.asks_for_otlp && self.otlp.as_ref().is_none_or(|otlp| !otlp.is_of(client));
        (is_unknown && self.otlp_after.is_none_or(|after| now >= after)).then_some(Question::Otlp)
    }

    fn is_paused(&self, now: Timestamp) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    fn trial(&self, now: Timestamp) -> Option<Question> {
        let id = self.trial_in.clone()?;
        self.trial.as_ref().is_none_or(|trial| trial.is_due(now)).then_some(Question::Trial(id))
    }

    /// Notes an answer. Says whether there is sense in asking the next question.
    pub(super) fn note(
        &mut self,
        question: Question,
        answer: Result<Answer, AskError>,
        now: Timestamp,
        tracing: &ObjectRef<Guarded>,
    ) -> bool {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%tracing, ?question, error = error_chain(&error), "failed to ask MLflow; trying again");
                return self.note_failure(question, &error, now);
            }
        };
        self.turn = self.turn.wrapping_add(1);
        match (question, answer) {
            (Question::Otlp, Answer::Otlp(support)) => (self.otlp, self.news) = (Some(support), true),
            (Question::Experiment(name), Answer::Experiment(found)) => {
                let effect = self.experiments.note(&name, found, now, tracing);
                if effect.anew {
                    (self.anew, self.trial) = (true, None);
                    self.searches.forget();
                }
                self.news |= effect.news || effect.anew;
                if !effect.goes_on {
                    self.paused_until = now.checked_add(RETRY).ok();
                }
                return effect.goes_on;
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
                self.news |= self.trial.as_ref().is_none_or(|before| before.writes != writes);
                self.trial = Some(Trial { at: Some(now), writes });
            }
            _ => {}
        }
        true
    }

    /// Notes that a question failed. One that fails by itself keeps no other from being asked; a server that does not answer is
    /// left alone for a while.
    fn note_failure(&mut self, question: Question, error: &AskError, now: Timestamp) -> bool {
        use mlflow::Error as E;
        let AskError::Mlflow(error) = error else {
            // Nothing was asked.
            self.paused_until = now.checked_add(RETRY).ok();
            return false;
        };
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::controller::mlflow_credentials::AuthenticatedClient;
    use crate::mlflow::{Http, MlflowClient};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn client(version: &str) -> Client {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = Http::with(reqwest::Client::builder().tls_certs_only([])).unwrap();
        Client {
            mlflow: AuthenticatedClient::that_shows_nothing(MlflowClient::new(&http, "https://mlflow.example.com")),
            version: version.to_owned(),
            gate: Arc::default(),
            asks_for_otlp: true,
            restores_deleted: false,
        }
    }

    /// After an upgrade at the same address agents were told of a path that this MLflow has by now.
    #[test]
    fn another_version_is_asked_again_whether_it_takes_otlp() {
        let mut state = State { client: Some(client("3.5.0")), ..State::default() };
        let next = |state: &State| state.next(true, at(0)).map(|(client, question)| (client.version, question));
        assert_eq!(next(&state), Some(("3.5.0".to_owned(), Question::Otlp)));
        let tracking_uri = "https://mlflow.example.com".to_owned();
        let support = OtlpSupport { tracking_uri, version: "3.5.0".to_owned(), is_taken: false };
        state.note(Question::Otlp, Ok(Answer::Otlp(support)), at(0), &ObjectRef::new("tracing"));
        assert_eq!((next(&state), state.takes_otlp()), (None, Some(false)));
        state.client = Some(client("3.10.1"));
        assert_eq!(state.takes_otlp(), None, "nobody knows yet");
        assert_eq!(next(&state), Some(("3.10.1".to_owned(), Question::Otlp)));
    }

    #[test]
    fn what_the_status_says_of_writes_counts_until_it_was_tried_again() {
        let refused = Some(Writes::Refused("it answers 500".to_owned()));
        let mut state = State { client: Some(client("3.10.1")), ..State::after_restart(refused.clone()) };
        state.set_trial(true, None);
        assert_eq!(state.writes(), refused, "also while nobody knows by which experiment to try");
        state.set_trial(true, Some("4".to_owned()));
        let trial = Question::Trial("4".to_owned());
        assert_eq!(state.next(false, at(0)).map(|(_, question)| question), Some(trial.clone()));
        state.note(trial, Ok(Answer::Trial(Ok(()))), at(0), &ObjectRef::new("tracing"));
        assert_eq!((state.writes(), state.news), (Some(Writes::Taken), true));

        let mut state = State::after_restart(refused);
        state.set_trial(false, None);
        assert_eq!(state.writes(), None, "traces come again");
    }

    #[test]
    fn without_a_token_nothing_is_asked_for_a_while_and_no_question_is_to_blame() {
        let mut state = State { client: Some(client("3.10.1")), ..State::default() };
        let error = || Err(AskError::Token(kube::Error::LinesCodecMaxLineLengthExceeded));
        assert!(!state.note(Question::Otlp, error(), at(0), &ObjectRef::new("tracing")));
        assert!(state.next(true, at(9)).is_none());
        assert!(state.next(true, at(10)).is_some(), "sooner than after an answer that failed");
    }
}
