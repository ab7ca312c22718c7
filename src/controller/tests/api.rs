//! A fake API server: objects by path, the writes that came, and a webhook that wires what is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::api::AgentTracing;
use crate::core::decide::{Decision, decide};
use crate::core::inject::view::Workload;
use crate::core::selection::SelectionContext;
use crate::core::selection::kind::Kind;
use crate::core::settings::Platform;
use crate::core::settings::policy::Policy;
use crate::names;

#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
    events: Vec<String>,
    refused: BTreeMap<String, (u16, String)>,
    webhook_away: bool,
    undoes: bool,
    admission: Option<Admission>,
    webhooks_merge_ca: Option<String>,
    reviews_denied: bool,
    tokens: usize,
    version: u64,
}

/// A policy that admits no object with a word in it.
struct Admission {
    refused_word: String,
    /// Not only Pods.
    workloads: bool,
}

impl FakeApi {
    pub fn client(&self) -> Client {
        let state = self.0.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let state = state.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let (code, answer) = state.lock().unwrap().answer(&head, &body);
                let answer = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
            }
        });
        Client::new(service, "default")
    }

    pub fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().put(path, object);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    pub fn edit(&self, path: &str, merge: Value) {
        let mut object = self.get(path).unwrap();
        json_patch::merge(&mut object, &merge);
        self.put(path, object);
    }

    pub fn delete(&self, path: &str) {
        self.0.lock().unwrap().objects.remove(path);
    }

    /// Refuses writes of an object; an empty message lifts it.
    pub fn refuse(&self, path: &str, code: u16, message: &str) {
        let mut state = self.0.lock().unwrap();
        match message {
            "" => state.refused.remove(path),
            _ => state.refused.insert(path.to_owned(), (code, message.to_owned())),
        };
    }

    /// From now on nobody may do anything.
    pub fn deny_reviews(&self) {
        self.0.lock().unwrap().reviews_denied = true;
    }

    pub fn webhook(&self, answers: bool) {
        self.0.lock().unwrap().webhook_away = !answers;
    }

    /// From now on the webhook that answers has another image for `merge-ca`; `None`: the same as the controller.
    pub fn webhooks_merge_ca(&self, image: Option<&str>) {
        self.0.lock().unwrap().webhooks_merge_ca = image.map(str::to_owned);
    }

    /// From now on somebody who comes after the webhook takes out what it put into templates.
    pub fn undo_in_the_same_request(&self) {
        self.0.lock().unwrap().undoes = true;
    }

    /// From now on no Pod with this word is admitted, nor any workload where `workloads` says so.
    pub fn admit_nothing_with(&self, word: &str, workloads: bool) {
        self.0.lock().unwrap().admission = Some(Admission { refused_word: word.to_owned(), workloads });
    }

    pub fn admit_everything(&self) {
        self.0.lock().unwrap().admission = None;
    }

    /// Gives an object what the webhook gives it when it is created.
    pub fn wire_as_created(&self, path: &str) {
        let mut state = self.0.lock().unwrap();
        let mut object = state.objects[path].clone();
        state.wire(path, &mut object);
        state.put(path, object);
    }

    pub fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().writes)
    }

    pub fn writes_to(&self, path: &str) -> usize {
        self.0.lock().unwrap().writes.iter().filter(|w| w.ends_with(path)).count()
    }

    pub fn events(&self) -> Vec<String> {
        self.0.lock().unwrap().events.clone()
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        let old = self.objects.get(path);
        let uid = old.map_or_else(|| json!(format!("uid-{}", self.version)), |o| o["metadata"]["uid"].clone());
        object["metadata"]["uid"] = uid;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object);
    }

    fn answer(&mut self, head: &http::request::Parts, body: &[u8]) -> (u16, Value) {
        let path = head.uri.path().to_owned();
        if head.method == Method::GET {
            return self.read(&path, head.uri.query().unwrap_or_default());
        }
        if path.ends_with("/events") {
            let event: Value = serde_json::from_slice(body).unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            self.events.push(format!("{} {}", text(&event["reason"]), text(&event["regarding"]["name"])));
            return (201, event);
        }
        if path.ends_with("/subjectaccessreviews") {
            let mut review: Value = serde_json::from_slice(body).unwrap();
            review["status"] = json!({"allowed": !self.reviews_denied});
            return (201, review);
        }
        if let Some(account) = path.strip_suffix("/token").and_then(|path| path.rsplit('/').next()) {
            self.tokens += 1;
            if let Some((code, message)) = self.refused.get(&path) {
                return (*code, failure(*code, message));
            }
            let mut request: Value = serde_json::from_slice(body).unwrap();
            let token = format!("token-{}-of-{account}", self.tokens);
            request["status"] = json!({"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"});
            return (201, request);
        }
        let dry_run = head.uri.query().unwrap_or_default().contains("dryRun=All");
        if dry_run && head.method == Method::POST {
            let object: Value = serde_json::from_slice(body).unwrap();
            return self.refusal(&path, &object).unwrap_or((201, object));
        }
        if dry_run {
            let (objects, version) = (self.objects.clone(), self.version);
            let answer = self.patch(&path, head.headers["content-type"].to_str().unwrap(), body);
            (self.objects, self.version) = (objects, version);
            return answer;
        }
        self.writes.push(format!("{} {path}", head.method));
        if let Some((code, message)) = self.refused.get(&path) {
            return (*code, failure(*code, message));
        }
        if head.method == Method::DELETE {
            self.objects.remove(&path);
            return (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}));
        }
        self.patch(&path, head.headers["content-type"].to_str().unwrap(), body)
    }

    fn read(&self, path: &str, query: &str) -> (u16, Value) {
        if let Some(object) = self.objects.get(path) {
            return (200, object.clone());
        }
        if path.rsplit('/').next().is_some_and(|last| LISTS.contains(&last)) {
            let within = format!("{path}/");
            let opted_in = query.contains("labelSelector=agenttracing.dev%2Finject%3Dtrue");
            let items: Vec<_> = self
                .objects
                .range(within.clone()..)
                .take_while(|(k, _)| k.starts_with(&within))
                .filter(|(_, o)| !opted_in || o["metadata"]["labels"][names::LABEL_INJECT] == "true")
                .collect();
            return (200, json!({"metadata": {}, "items": items.into_iter().map(|(_, o)| o).collect::<Vec<_>>()}));
        }
        (404, failure(404, "not found"))
    }

    fn patch(&mut self, path: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
        let path = path.strip_suffix("/status").unwrap_or(path);
        let patch: Value = serde_json::from_slice(body).unwrap();
        let old = self.objects.get(path).cloned();
        let mut new = old.clone().unwrap_or_else(|| json!({}));
        match content_type {
            "application/apply-patch+yaml" | "application/merge-patch+json" => json_patch::merge(&mut new, &patch),
            _ => {
                let operations: json_patch::Patch = serde_json::from_value(patch.clone()).unwrap();
                if json_patch::patch(&mut new, &operations).is_err() {
                    let message = "the server rejected our request due to an error in our request";
                    return (422, failure(422, message));
                }
            }
        }
        let touched = &new["metadata"]["annotations"][names::ANNOTATION_TOUCH];
        let is_touch = old.as_ref().is_some_and(|o| o["metadata"]["annotations"][names::ANNOTATION_TOUCH] != *touched);
        if is_touch && !touched.is_null() && !self.webhook_away {
            let before = new["spec"].clone();
            self.wire(path, &mut new);
            if self.undoes {
                new["spec"] = before;
            }
        }
        if let Some(refused) = self.refusal(path, &new["spec"]) {
            return refused;
        }
        if old.as_ref() != Some(&new) {
            self.put(path, new);
        }
        (200, self.objects[path].clone())
    }

    fn refusal(&self, path: &str, object: &Value) -> Option<(u16, Value)> {
        let Admission { refused_word, workloads } = self.admission.as_ref()?;
        let is_concerned = path.contains("/pods") || (*workloads && path.contains("/deployments"));
        let refused = is_concerned && object.to_string().contains(refused_word);
        refused.then(|| {
            (403, failure(403, "admission webhook \"images.example\" denied the request: not from our registry"))
        })
    }

    /// What the webhook does: decides from what is stored.
    fn wire(&self, path: &str, workload: &mut Value) {
        let tracings = self.objects.iter().filter(|(path, _)| path.contains("/agenttracings/"));
        let policies: Vec<_> = tracings
            .map(|(_, object)| Policy::of(&serde_json::from_value::<AgentTracing>(object.clone()).unwrap()))
            .collect();
        let mut platform = Platform::default();
        platform.merge_ca.image = self.webhooks_merge_ca.clone().unwrap_or(platform.merge_ca.image);
        let context = SelectionContext {
            namespace: "bank-agents",
            injection_enabled: true,
            platform: &platform,
            tokenless: &BTreeSet::new(),
            policies: &policies,
            renews: false,
        };
        let text = workload.to_string();
        let kind = Kind::ALL.into_iter().find(|kind| path.contains(&format!("/{}/", kind.plural()))).unwrap();
        if let Decision::Wire { injection, .. } = decide(&Workload::parse(kind, &text).unwrap(), &context) {
            json_patch::patch(workload, &injection.patch).unwrap();
        }
    }
}

const LISTS: [&str; 9] = [
    "deployments",
    "statefulsets",
    "daemonsets",
    "cronjobs",
    "jobs",
    "pods",
    "agenttracings",
    "serviceaccounts",
    "configmaps",
];

fn failure(code: u16, message: &str) -> Value {
    let reason = match code {
        404 => "NotFound",
        403 => "Forbidden",
        409 => "Conflict",
        _ => "Invalid",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message, "metadata": {}})
}
