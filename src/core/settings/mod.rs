//! An AgentTracing parsed once: what its spec wants ([`Settings`]) and what its status knows ([`Facts`]). The raw resource stops
//! here; webhook, controller and command line have this parser alone.

mod cr;
mod external;
mod facts;
pub mod hosts;
mod injection;
mod platform;
pub mod policy;
mod problem;
mod relay;
mod resources;
mod standalone;
mod valid;

use self::policy::{CaChoice, RolloutStrategy};
use crate::api::{
    AgentTracing, AgentTracingSpec, AuthMethod, ContainerNames, EnvVar, Experiment, LabelSelector, Mlflow, MlflowMode,
    Sdk,
};
use crate::core::inject::view::Workload;
use crate::core::selection::kind::Kind;
use crate::names;
pub use cr::{CrSettings, DEFAULT_CR_NAME, DEFAULT_CR_ORIGIN};
pub use external::ExternalSettings;
pub use facts::Facts;
pub use injection::RESERVED;
pub use platform::{MergeCa, Platform, SYSTEM_NAMESPACE, SYSTEM_PREFIXES, is_system_namespace};
pub use problem::Problem;
use problem::Problems;
pub use relay::{OtlpTarget, RelaySettings, RelayVolume};
pub use standalone::{DEFAULT_IMAGE, DEFAULT_SIZE, StandaloneSettings};

/// What an AgentTracing wants, with every default resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the AgentTracing.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid, for owner references.
    pub uid: String,
    /// Creation time in seconds; the oldest of several wins.
    pub created: i64,
    /// `spec.suspend`.
    pub suspend: bool,
    /// The MLflow that agents send their traces to.
    pub server: Server,
    /// The workspace that traces go to, where the server has workspaces.
    pub workspace: Option<String>,
    /// How agents authenticate.
    pub auth: AuthMethod,
    /// Where agents send what they say in OTLP.
    pub otlp: OtlpTarget,
    /// The relay, where something uses one.
    pub relay: Option<RelaySettings>,
    /// The certificate authorities that agents get.
    pub ca: Option<CaChoice>,
    /// Experiment settings.
    pub experiment: Experiment,
    /// Workloads of which kinds.
    pub kinds: Vec<Kind>,
    /// Which of them.
    pub selector: LabelSelector,
    /// Which containers.
    pub containers: ContainerNames,
    /// More variables.
    pub env: Vec<EnvVar>,
    /// How fast running workloads may be changed.
    pub rollout_strategy: RolloutStrategy,
    /// SDK settings.
    pub sdk: Sdk,
}

/// Who runs the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Server {
    /// The operator, in the namespace of the AgentTracing.
    Standalone(Box<StandaloneSettings>),
    /// The MLflow operator, for the whole cluster.
    Cr(CrSettings),
    /// Somebody else.
    External(ExternalSettings),
}

/// Parses an AgentTracing, or names everything that is wrong with it.
///
/// The API server has checked schema and CEL rules. What stands here is what they cannot say, and what an object created
/// before a rule existed may still hold.
pub fn parse(tracing: &AgentTracing) -> Result<Settings, Vec<Problem>> {
    let (settings, problems) = read(tracing);
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// Reads an AgentTracing as far as it can be read, and everything that is wrong with it. What is wired stays wired by a spec
/// with a problem, which status tells.
pub fn read(tracing: &AgentTracing) -> (Settings, Vec<Problem>) {
    // Destructured, so that a new field of the spec cannot be forgotten here.
    let AgentTracingSpec { suspend, mlflow, experiment, auth, otlp, relay, ca_bundle, injection, sdk } =
        tracing.spec.clone();
    let metadata = &tracing.metadata;
    let mut problems = Problems::default();
    let name = metadata.name.clone().unwrap_or_default();
    if !valid::name(&name) {
        let remedy = "create it again under a name of at most 56 lower-case letters, digits and '-' that starts with a \
                      letter and ends with a letter or digit: it prefixes the name of a Service";
        problems.add("metadata.name", &name, remedy);
    }
    let injection = injection.unwrap_or_default();
    injection::validate(&injection, &mut problems);
    let server = server(mlflow, &mut problems);
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let auth = auth.and_then(|auth| auth.method).unwrap_or(match &server {
        Server::Cr(_) => AuthMethod::TokenFile,
        Server::Standalone(_) | Server::External(_) => AuthMethod::None,
    });
    relay::check_auth(auth, &server, &mut problems);
    let otlp = relay::otlp(otlp.unwrap_or_default(), auth, &server, &mut problems);
    let ca_bundle = ca_bundle.unwrap_or_default();
    let uses_relay = auth == AuthMethod::Relay || otlp == OtlpTarget::Relay;
    injection::check_otlp(&injection, &otlp, &mut problems);
    let settings = Settings {
        name,
        uid: metadata.uid.clone().unwrap_or_default(),
        created: metadata.creation_timestamp.as_ref().map_or(0, |created| created.0.as_second()),
        suspend,
        workspace: match &server {
            Server::Standalone(_) => None,
            Server::Cr(_) => Some(namespace.clone()),
            Server::External(external) => external.workspace.clone(),
        },
        namespace,
        auth,
        otlp,
        relay: relay::relay(relay, &ca_bundle.config_maps, uses_relay, &mut problems),
        // Who talks to the relay alone speaks no TLS to MLflow.
        ca: CaChoice::of(ca_bundle, &server).filter(|_| auth != AuthMethod::Relay),
        server,
        experiment,
        kinds: injection.kinds.map_or(DEFAULT_KINDS.to_vec(), |kinds| kinds.into_iter().map(Kind::from).collect()),
        selector: injection.selector.unwrap_or_default(),
        containers: injection.containers.unwrap_or_default(),
        env: injection.env,
        rollout_strategy: RolloutStrategy::of(injection.rollout.unwrap_or_default()),
        sdk: sdk.unwrap_or_default(),
    };
    (settings, problems.0)
}

/// The block of the mode. Those of other modes are checked as well: what comes from a file has passed no CEL rule.
fn server(mlflow: Mlflow, problems: &mut Problems) -> Server {
    let Mlflow { mode, standalone, cr, external } = mlflow;
    let external = external::external(external, mode == MlflowMode::External, problems);
    let standalone = standalone::standalone(standalone.unwrap_or_default(), problems);
    match mode {
        MlflowMode::Standalone => Server::Standalone(Box::new(standalone)),
        MlflowMode::Cr => Server::Cr(cr::cr(cr.unwrap_or_default())),
        MlflowMode::External => Server::External(external),
    }
}

impl Server {
    /// `spec.mlflow.mode`.
    pub fn mode(&self) -> MlflowMode {
        match self {
            Self::Standalone(_) => MlflowMode::Standalone,
            Self::Cr(_) => MlflowMode::Cr,
            Self::External(_) => MlflowMode::External,
        }
    }
}

impl Settings {
    /// The workspace that traces go to on a server of which so much is known. Against one without workspaces the variable turns
    /// every answer into an error 500.
    pub fn workspace_at(&self, facts: &Facts) -> Option<&str> {
        self.workspace.as_deref().filter(|_| facts.workspaces != Some(false))
    }

    /// Name of the objects of a standalone server: `<AgentTracing>-mlflow`.
    pub fn object_name(&self) -> String {
        names::mlflow_object(&self.name)
    }

    /// The address that agents get where no server has to be asked for it, for workloads that cannot wait until MLflow has
    /// answered.
    pub fn address(&self) -> Option<String> {
        match &self.server {
            Server::Standalone(standalone) => Some(names::mlflow_uri(&self.name, &self.namespace, standalone.port)),
            // The version that the server runs decides about its path, and whether it has workspaces.
            Server::Cr(_) => None,
            Server::External(external) => external.tracking_uri.clone(),
        }
    }

    /// The address that agents get as far as the spec alone says it: in mode CR the server has the last word.
    pub fn tracking_uri(&self) -> String {
        match &self.server {
            Server::Cr(cr) => cr.url.clone().unwrap_or_else(|| DEFAULT_CR_ORIGIN.to_owned()),
            Server::Standalone(_) | Server::External(_) => self.address().unwrap_or_default(),
        }
    }

    /// Its place among several that match a workload: the first wins, which is the oldest.
    pub fn age(&self) -> (i64, &str) {
        (self.created, &self.name)
    }

    /// Whether the spec selects this workload, which neither opts in nor out.
    pub fn selects(&self, workload: &Workload<'_>) -> bool {
        self.kinds.contains(&workload.kind) && self.selector.matches(|key| workload.template_label(key))
    }

    /// Whether MLflow is shown a token, by agents or by the relay for them.
    pub fn needs_token(&self) -> bool {
        self.auth != AuthMethod::None
    }

    /// Whether agents talk to the relay alone, in place of MLflow.
    pub fn relays_all(&self) -> bool {
        self.auth == AuthMethod::Relay
    }

    /// Whether a pod without a service account token could not log to MLflow.
    pub fn agents_need_token(&self) -> bool {
        self.needs_token() && !self.relays_all()
    }

    /// The experiment of a workload: its annotation, else the template filled in.
    pub fn experiment_of(&self, workload: &str, annotation: Option<&str>) -> String {
        match annotation {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => self
                .experiment
                .name
                .replace("{workload}", workload)
                .replace("{namespace}", &self.namespace)
                .replace("{tracing}", &self.name),
        }
    }
}

const DEFAULT_KINDS: [Kind; 3] = [Kind::Deployment, Kind::Job, Kind::CronJob];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use kube::CustomResourceExt;

    use super::*;
    use crate::api::{DeletionPolicy, ImagePullPolicy, Resources};

    fn tracing(standalone: &str) -> AgentTracing {
        let yaml = format!(
            "{{apiVersion: agenttracing.dev/v1alpha1, kind: AgentTracing, metadata: {{name: tracing, namespace: bank}}, \
             spec: {{mlflow: {{mode: Standalone, standalone: {standalone}}}}}}}"
        );
        serde_yaml::from_str(&yaml).unwrap()
    }

    fn settings(standalone: &str) -> StandaloneSettings {
        match parse(&tracing(standalone)).unwrap().server {
            Server::Standalone(standalone) => *standalone,
            other => panic!("{other:?}"),
        }
    }

    fn told(tracing: &AgentTracing) -> Vec<String> {
        parse(tracing).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn everything_has_a_default() {
        let settings = parse(&tracing("{}")).unwrap();
        assert_eq!(settings.tracking_uri(), "http://tracing-mlflow.bank.svc:5500");
        let Server::Standalone(standalone) = settings.server else { panic!("{:?}", settings.server) };
        assert_eq!(standalone.image, "ghcr.io/mlflow/mlflow:v3.10.1");
        assert_eq!((standalone.workers, standalone.storage_size.as_str()), (1, "5Gi"));
        assert_eq!(standalone.deletion_policy, DeletionPolicy::Retain);
        assert_eq!(standalone.image_pull_policy, ImagePullPolicy::IfNotPresent);
        assert_eq!(standalone.network_policy, Some(Vec::new()));
    }

    #[test]
    fn resources_grow_with_the_workers_and_give_way_to_the_user() {
        let shown = |standalone: &str| {
            let Resources { limits, requests } = settings(standalone).resources;
            let text =
                |list: BTreeMap<String, Quantity>| list.into_iter().map(|(k, q)| format!("{k}={}", q.0)).collect();
            let (limits, requests): (Vec<String>, Vec<String>) = (text(limits), text(requests));
            format!("{} / {}", requests.join(" "), limits.join(" "))
        };
        assert_eq!(shown("{}"), "cpu=100m memory=512Mi / memory=1024Mi");
        assert_eq!(shown("{workers: 3}"), "cpu=100m memory=1024Mi / memory=1536Mi");
        assert_eq!(
            shown("{resources: {limits: {cpu: 50m, memory: 256Mi}}}"),
            "cpu=50m memory=256Mi / cpu=50m memory=256Mi"
        );
        assert_eq!(shown("{resources: {requests: {memory: 2Gi}}}"), "cpu=100m memory=2Gi / memory=2Gi");
    }

    #[test]
    fn each_problem_names_field_value_and_remedy() {
        for (standalone, field, value) in [
            ("{storage: {size: '0'}}", "storage.size", "0"),
            ("{storage: {size: 5gb}}", "storage.size", "5gb"),
            ("{resources: {limits: {memory: lots}}}", "resources.limits.memory", "lots"),
            ("{resources: {requests: {cpu: '2'}, limits: {cpu: '1'}}}", "resources.requests.cpu", "2"),
            ("{podLabels: {'not a key': x}}", "podLabels", "not a key"),
            ("{podLabels: {team: 'a b'}}", "podLabels.team", "a b"),
            ("{nodeSelector: {Zone/: x}}", "nodeSelector", "Zone/"),
            ("{allowedHosts: ['https://mlflow.example.com']}", "allowedHosts", "https://mlflow.example.com"),
            ("{allowedHosts: [MLflow.example.com]}", "allowedHosts", "MLflow.example.com"),
            ("{imagePullSecrets: [{name: Mirror}]}", "imagePullSecrets.name", "Mirror"),
            ("{backendStoreSecret: {name: db, key: 'a/b'}}", "backendStoreSecret.key", "a/b"),
            ("{artifacts: {destination: 'file:///x'}}", "artifacts.destination", "file:///x"),
        ] {
            let told = told(&tracing(standalone));
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(&format!("spec.mlflow.standalone.{field} is \"{value}\": ")), "{}", told[0]);
        }
    }

    #[test]
    fn a_name_that_slipped_through_and_a_selector_that_selects_nothing_are_told() {
        let mut wrong = tracing("{}");
        wrong.metadata.name = Some("9".repeat(60));
        let injection = "{env: [{name: MLFLOW_TRACKING_URI, value: x}], selector: {matchExpressions: \
                         [{key: tier, operator: In}, {key: tier, operator: Exists, values: [x]}, {key: '-', operator: Exists}]}}";
        wrong.spec.injection = Some(serde_yaml::from_str(injection).unwrap());
        let fields: Vec<String> = parse(&wrong).unwrap_err().into_iter().map(|p| p.field).collect();
        let selector = "spec.injection.selector.matchExpressions";
        let values = format!("{selector}.values");
        let expected = ["metadata.name", "spec.injection.env.name", &values, &values, &format!("{selector}.key")];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_stands_twice_is_taken_once() {
        let settings = settings("{imagePullSecrets: [{name: a}, {name: b}, {name: a}], allowedHosts: [h, h]}");
        assert_eq!(settings.image_pull_secrets, ["a", "b"]);
        assert_eq!(settings.allowed_hosts, ["h"]);
    }

    #[test]
    fn the_reserved_names_are_those_of_the_cel_rule() {
        let crd = serde_json::to_string(&AgentTracing::crd()).unwrap();
        let list = crd.split("!(self.name in [").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
        let in_rule: Vec<&str> = list.split(',').map(|name| name.trim_matches('\'')).collect();
        assert_eq!(in_rule, RESERVED);
    }

    /// Review 3.2(4): two parsers of one spec.
    #[test]
    fn settings_and_policy_are_of_one_parser_and_hold_the_server_of_the_mode() {
        let of_mode = |mlflow: &str| {
            let mut tracing = tracing("{}");
            tracing.spec.mlflow = serde_yaml::from_str(mlflow).unwrap();
            let (parsed, policy) = (parse(&tracing).unwrap(), policy::Policy::of(&tracing));
            assert_eq!(format!("{parsed:?}"), format!("{:?}", policy.settings));
            let address = parsed.address();
            (parsed.server.mode(), parsed.auth, parsed.workspace, address, policy.facts.bound)
        };
        let standalone = Some("http://tracing-mlflow.bank.svc:5600".to_owned());
        assert_eq!(
            of_mode("{mode: Standalone, standalone: {port: 5600}}"),
            (MlflowMode::Standalone, AuthMethod::None, None, standalone, None)
        );
        let nobody_yet = Some(BTreeSet::new());
        assert_eq!(
            of_mode("{mode: CR, cr: {url: 'https://m:8443/'}}"),
            (MlflowMode::Cr, AuthMethod::TokenFile, Some("bank".to_owned()), None, nobody_yet)
        );
        assert_eq!(
            of_mode("{mode: External, external: {trackingURI: 'https://m/', workspace: team}}"),
            (MlflowMode::External, AuthMethod::None, Some("team".to_owned()), Some("https://m".to_owned()), None)
        );
    }

    #[test]
    fn what_is_wrong_with_a_spec_is_told_and_the_rest_of_it_counts_for_what_is_wired() {
        let mut wrong = tracing("{storage: {size: 5gb}}");
        wrong.spec.mlflow =
            serde_yaml::from_str("{mode: External, external: {trackingURI: 'https://u:p@m'}, standalone: {port: 1, workers: 2, storage: {size: 5gb}}}")
                .unwrap();
        let (settings, problems) = read(&wrong);
        let fields: Vec<_> = problems.iter().map(|p| (p.field.as_str(), p.value.as_str())).collect();
        let size = "spec.mlflow.standalone.storage.size";
        assert_eq!(fields, [("spec.mlflow.external.trackingURI", "m"), (size, "5gb")], "also of another mode's block");
        assert_eq!((settings.address(), settings.kinds.len()), (None, 3), "no agent gets an address with a password");
    }
}
