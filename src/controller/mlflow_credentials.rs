//! Who the operator is to an MLflow that wants to know: ServiceAccount `agent-tracing-observer`, which has no right but the
//! one that the RoleBinding of a namespace gives it there. MLflow, and whoever reads its memory, never sees a token that
//! could do more.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};

use super::mlflow_server::Server;
use super::rbac::Rights;
use super::{Context, Error, observe};
use crate::api::{MlflowMode, Reason};
use crate::core::kubectl::Kubectl;
use crate::core::settings::Settings;
use crate::core::status::condition::ConditionUpdate;
use crate::core::status::quote::shorten;
use crate::mlflow::{Access, MlflowClient};
use crate::names;

/// The observer, with its token, which is kept until half of its time is over.
pub(super) struct Observer {
    accounts: Api<ServiceAccount>,
    token: tokio::sync::Mutex<Option<Token>>,
}

/// Never printed: there is no `Debug`.
struct Token {
    text: String,
    requested: Timestamp,
    seconds: i64,
}

impl Token {
    fn is_fresh(&self, now: Timestamp) -> bool {
        (0..self.seconds / 2).contains(&now.duration_since(self.requested).as_secs())
    }

    fn is_valid(&self, now: Timestamp) -> bool {
        (0..self.seconds - SPARE).contains(&now.duration_since(self.requested).as_secs())
    }
}

/// A client with what it may show to MLflow.
#[derive(Clone)]
pub(super) struct AuthenticatedClient {
    mlflow: MlflowClient,
    workspace: Option<String>,
    /// Whose token is shown, where one is needed.
    observer: Option<Arc<Observer>>,
}

impl AuthenticatedClient {
    /// The client for a question that is asked now. Questions between two passes need a token of their own: a pass may be a quarter
    /// of an hour old, and an API server may give tokens that last no longer.
    pub(super) async fn at(&self, now: Timestamp) -> Result<MlflowClient, kube::Error> {
        let token = match &self.observer {
            Some(observer) => Some(observer.token(now).await?),
            None => None,
        };
        Ok(self.mlflow.clone().with_access(Access { token, workspace: self.workspace.clone() }))
    }

    /// Where it asks.
    pub(super) fn tracking_uri(&self) -> &str {
        self.mlflow.tracking_uri()
    }

    /// For tests: one that shows nothing.
    #[cfg(test)]
    pub(super) fn that_shows_nothing(mlflow: MlflowClient) -> Self {
        Self { mlflow, workspace: None, observer: None }
    }
}

impl std::fmt::Debug for AuthenticatedClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthenticatedClient").field("tracking_uri", &self.tracking_uri()).finish_non_exhaustive()
    }
}

/// The client by which a pass asks MLflow, with what it may show there. A server that needs a token comes with a client only
/// where it may be shown one, see [`Server`].
pub(super) async fn client(
    ctx: &Context,
    settings: &Settings,
    server: &mut Server,
    rights: &mut Rights,
    now: Timestamp,
) -> Result<Option<AuthenticatedClient>, Error> {
    let Some(mlflow) = server.client.take().filter(|_| rights.may_ask) else { return Ok(None) };
    let has_workspaces = server.answered.as_ref().is_none_or(|answered| answered.workspaces);
    let workspace = settings.workspace.clone().filter(|_| has_workspaces);
    if !settings.needs_token() {
        return Ok(Some(AuthenticatedClient { mlflow, workspace, observer: None }));
    }
    match ctx.observer.token(now).await {
        Ok(_) => Ok(Some(AuthenticatedClient { mlflow, workspace, observer: Some(ctx.observer.clone()) })),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 404 | 422) => {
            let home = &ctx.platform.operator_namespace;
            let message = format!(
                "The API server gives the operator no token of ServiceAccount {home}/{0} ({1}), so that nobody can look for \
                 traces; install the operator's rights again, then look with: {2}",
                names::OBSERVER,
                shorten(&status.message),
                Kubectl::new("get serviceaccount,role,rolebinding").namespace(home)
            );
            match settings.server.mode() {
                MlflowMode::Cr => rights.verdict = Some(ConditionUpdate::bad(Reason::AccessDenied, message)),
                MlflowMode::Standalone | MlflowMode::External => {
                    server.verdict = ConditionUpdate::unknown(Reason::NotObservable, message);
                }
            }
            Ok(None)
        }
        Err(source) => Err(observe::Error::Read { what: format!("the token of {}", names::OBSERVER), source }.into()),
    }
}

impl Observer {
    pub(super) fn new(client: Client, operator_namespace: &str) -> Self {
        Self { accounts: Api::namespaced(client, operator_namespace), token: tokio::sync::Mutex::default() }
    }

    async fn token(&self, now: Timestamp) -> Result<String, kube::Error> {
        let mut current = self.token.lock().await;
        if let Some(token) = current.as_ref().filter(|token| token.is_fresh(now)) {
            return Ok(token.text.clone());
        }
        match self.request(now).await {
            Ok(token) => Ok(current.insert(token).text.clone()),
            Err(error) => match current.as_ref().filter(|token| token.is_valid(now)) {
                Some(token) => {
                    tracing::warn!(%error, "the observer's token is not renewed yet");
                    Ok(token.text.clone())
                }
                None => Err(error),
            },
        }
    }

    async fn request(&self, now: Timestamp) -> Result<Token, kube::Error> {
        // The audience is the API server's own: MLflow asks it with this very token what its bearer may do
        // (SelfSubjectAccessReview), and the API server believes no token that is for somebody else.
        let spec = TokenRequestSpec { expiration_seconds: Some(LIFETIME), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let TokenRequest { spec, status, .. } =
            self.accounts.create_token_request(names::OBSERVER, &PostParams::default(), &request).await?;
        let none = || <serde_json::Error as serde::de::Error>::custom("the answer has no token");
        let text = status.and_then(|status| status.token).ok_or_else(|| kube::Error::SerdeError(none()))?;
        let seconds = spec.and_then(|spec| spec.expiration_seconds).unwrap_or(LIFETIME);
        Ok(Token { text, requested: now, seconds })
    }
}

/// What is asked for; the API server may give less or more.
const LIFETIME: i64 = 3600;
/// For a pass that is under way when the token ends.
const SPARE: i64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_at_half_of_its_time_and_used_to_its_end_where_that_fails() {
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let token = Token { text: "t".into(), requested: at(0), seconds: 3600 };
        assert!(token.is_fresh(at(0)) && token.is_fresh(at(1799)) && !token.is_fresh(at(1800)));
        assert!(token.is_valid(at(3539)) && !token.is_valid(at(3540)));
        // A clock that was set back says nothing about the token.
        assert!(!token.is_fresh(at(-1)) && !token.is_valid(at(-1)));
    }
}
