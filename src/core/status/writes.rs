//! Whether MLflow writes. On a full disk, and with a read-only database, it answers every read and loses every trace.

use super::condition::ConditionUpdate;
use crate::api::{AgentTracingStatus, ConditionType, Reason};
use crate::core::kubectl::Kubectl;
use crate::core::settings::{Server, Settings};
use crate::names;

/// What became of a write by way of trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writes {
    /// It was taken.
    Taken,
    /// There is no room for it.
    Full,
    /// It was refused, in our own words.
    Refused(String),
}

/// Condition `MLflowReady` of a server that answers, with what is known of its writing.
pub fn mlflow_ready(
    answers: ConditionUpdate,
    writes: Option<&Writes>,
    settings: &Settings,
    url: &str,
) -> ConditionUpdate {
    if answers.good != Some(true) {
        return answers;
    }
    let Settings { namespace, name, .. } = settings;
    let (reason, what) = match writes {
        None | Some(Writes::Taken) => return answers,
        Some(Writes::Full) => (Reason::StorageFull, format!("its storage is full{LOSS}")),
        Some(Writes::Refused(why)) => (Reason::WritesRefused, format!("{REFUSED}{why}){LOSS}")),
    };
    let server = format!("deployment/{}", names::mlflow_object(name));
    let on_tracing = |what: &str| Kubectl::new(what).arg("agenttracing").namespace(namespace).arg(name);
    let remedy = match (&settings.server, reason) {
        (Server::Standalone(standalone), Reason::StorageFull) if standalone.backend_store_secret.is_none() => {
            format!("give it more than spec.mlflow.standalone.storage.size says: {}", on_tracing("edit"))
        }
        (Server::Standalone(_), _) => {
            format!("read why: {}", Kubectl::new("logs").namespace(namespace).arg(&server))
        }
        (Server::Cr(cr), _) => {
            format!("see its storage: {}", Kubectl::new("get mlflow").arg(&cr.name).yaml())
        }
        (Server::External(_), _) => {
            format!("whoever runs it can mend that; see its address: {}", on_tracing("get").yaml())
        }
    };
    ConditionUpdate::bad(reason, format!("MLflow answers at {url}, but {what}; {remedy}"))
}

/// What a status says of the writes of a server that answers: a new leader goes on from there.
pub fn of_status(status: &AgentTracingStatus) -> Option<Writes> {
    let ready = status.conditions.iter().find(|c| c.type_ == ConditionType::MLflowReady.as_str())?;
    // A server that does not answer at all may say as well that its storage is full.
    let (sentence, _) = ready.message.split_once(LOSS).filter(|_| ready.status == "False")?;
    match Reason::from_name(&ready.reason)? {
        Reason::StorageFull => Some(Writes::Full),
        Reason::WritesRefused => Some(Writes::Refused(sentence.split_once(REFUSED)?.1.strip_suffix(')')?.to_owned())),
        _ => None,
    }
}

const REFUSED: &str = "it does not write (";
const LOSS: &str = ", so that it loses every trace";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AgentTracing;
    use crate::core::settings::parse;

    const URL: &str = "http://tracing-mlflow.bank-agents.svc:5500";

    fn sentence(spec: &str, writes: Option<&Writes>) -> ConditionUpdate {
        let yaml = format!(
            "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\nmetadata: {{name: tracing, namespace: bank-agents}}\n\
             spec: {{mlflow: {spec}}}"
        );
        let settings = parse(&serde_yaml::from_str::<AgentTracing>(&yaml).unwrap()).unwrap();
        mlflow_ready(ConditionUpdate::good(Reason::Available, "it answers"), writes, &settings, URL)
    }

    // Section 3, point 2.
    #[test]
    fn a_server_that_answers_and_does_not_write_is_not_ready() {
        let refused = Writes::Refused("it fails (500, INTERNAL_ERROR)".into());
        for spec in ["{mode: Standalone}", "{mode: CR}", "{mode: External, external: {trackingURI: 'http://m:5000'}}"] {
            for (writes, reason) in [
                (None, Reason::Available),
                (Some(&Writes::Taken), Reason::Available),
                (Some(&Writes::Full), Reason::StorageFull),
                (Some(&refused), Reason::WritesRefused),
            ] {
                let update = sentence(spec, writes);
                assert_eq!((update.reason, update.good), (reason, Some(reason == Reason::Available)));
                assert!(reason == Reason::Available || update.message.contains("; "), "{}", update.message);
            }
        }
        let full = sentence("{mode: Standalone}", Some(&Writes::Full)).message;
        assert!(full.ends_with("kubectl edit agenttracing -n bank-agents tracing"), "{full}");
    }

    #[test]
    fn a_server_that_does_not_answer_is_told_for_that() {
        let yaml = "apiVersion: agenttracing.dev/v1alpha1\nkind: AgentTracing\nmetadata: {name: tracing, namespace: x}\n\
                    spec: {mlflow: {mode: Standalone}}";
        let settings = parse(&serde_yaml::from_str::<AgentTracing>(yaml).unwrap()).unwrap();
        let down = ConditionUpdate::bad(Reason::Unreachable, "it is down");
        assert_eq!(mlflow_ready(down.clone(), Some(&Writes::Full), &settings, URL), down);
    }

    #[test]
    fn a_status_tells_what_it_was_written_from() {
        use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
        for writes in [Writes::Full, Writes::Refused("it answers 500 (BAD_REQUEST)".into())] {
            let ConditionUpdate { reason, message, .. } = sentence("{mode: Standalone}", Some(&writes));
            let condition = |message: String| Condition {
                type_: "MLflowReady".into(),
                status: "False".into(),
                reason: reason.as_str().into(),
                message,
                observed_generation: None,
                last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
            };
            let status = |message| AgentTracingStatus { conditions: vec![condition(message)], ..Default::default() };
            assert_eq!(of_status(&status(message)), Some(writes));
            assert_eq!(of_status(&status("MLflow cannot be asked: its storage is full; look".into())), None);
        }
        assert_eq!(of_status(&AgentTracingStatus::default()), None);
    }
}
