//! Agents that speak OTLP to MLflow by an address of their own.

use crate::core::inject::view::Workload;
use crate::core::status::url::origin;
use crate::core::wiring::TRACKING_URI;

/// The address of MLflow's OTLP receiver, below the origin in every version.
const PATH: &str = "/v1/traces";
/// For traces alone, as it is.
const FOR_TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// For all signals; exporters add the path of theirs.
const FOR_ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Where a container's own environment sends its traces by OTLP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The container.
    pub container: String,
    variable: &'static str,
    value: String,
}

impl Endpoint {
    /// The endpoint that the first container with one has; that of traces wins over that of all signals.
    pub fn of(workload: &Workload<'_>) -> Option<Self> {
        workload.pod.containers.iter().find_map(|container| {
            [FOR_TRACES, FOR_ALL].into_iter().find_map(|variable| {
                let entry = container.env.iter().flatten().rev().find(|entry| &*entry.name == variable)?;
                let value = entry.value.as_deref().filter(|value| !value.is_empty())?;
                Some(Self { container: container.name.to_string(), variable, value: value.to_owned() })
            })
        })
    }

    /// Where it is the MLflow at this tracking URI, and not the path at which that takes OTLP: the assignment that mends it. It
    /// changes only a variable that the container has, since a new one would take the traces of MLflow's SDK there too.
    pub fn correct(&self, tracking_uri: &str) -> Option<String> {
        let value = self.value.replace(&format!("$({TRACKING_URI})"), tracking_uri);
        let given = value.trim_end_matches('/');
        let mlflow = origin(tracking_uri).filter(|mlflow| origin(given).as_ref() == Some(mlflow))?;
        let (right, mended) = match self.variable {
            FOR_ALL => (given == mlflow, mlflow),
            _ => (given == format!("{mlflow}{PATH}"), format!("{mlflow}{PATH}")),
        };
        (!right).then(|| format!("{}={mended}", self.variable))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::selection::kind::Kind;

    const URI: &str = "https://mlflow.redhat-ods-applications.svc:8443/mlflow";

    fn correct(env: Value) -> Option<String> {
        let template = json!({"spec": {"containers": [{"name": "proxy"}, {"name": "agent", "env": env}]}});
        let object = json!({"metadata": {"name": "courier"}, "spec": {"selector": {}, "template": template}});
        Endpoint::of(&Workload::read(Kind::Deployment, &object).unwrap())?.correct(URI)
    }

    // Section 3, point 4.
    #[test]
    fn an_endpoint_at_mlflow_but_not_at_its_path_is_mended_in_the_variable_that_has_it() {
        let set = |name: &str, value: &str| correct(json!([{"name": name, "value": value}]));
        let right = "https://mlflow.redhat-ods-applications.svc:8443/v1/traces";
        let mended_traces = Some(format!("{FOR_TRACES}={right}"));
        assert_eq!(set(FOR_TRACES, &format!("{URI}/v1/traces")), mended_traces);
        assert_eq!(set(FOR_TRACES, "$(MLFLOW_TRACKING_URI)/v1/traces"), mended_traces);
        assert_eq!(set(FOR_TRACES, right), None);
        let origin = "https://mlflow.redhat-ods-applications.svc:8443";
        assert_eq!(set(FOR_ALL, URI), Some(format!("{FOR_ALL}={origin}")));
        assert_eq!(set(FOR_ALL, origin), None);
    }

    #[test]
    fn without_an_endpoint_at_mlflow_nothing_says_that_it_speaks_otlp() {
        assert_eq!(correct(json!([])), None);
        assert_eq!(correct(json!([{"name": FOR_ALL, "value": "http://collector:4318"}])), None);
        assert_eq!(correct(json!([{"name": FOR_ALL, "valueFrom": {"fieldRef": {"fieldPath": "x"}}}])), None);
        assert_eq!(correct(json!([{"name": "OTEL_SERVICE_NAME", "value": URI}])), None);
    }
}
