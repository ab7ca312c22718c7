//! Compute resources: the user's over the defaults.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Problems, valid};
use crate::api::Resources;
use crate::core::children::quantity;

/// `requests` or `limits`, resource and amount.
pub(super) type Default<'a> = (&'static str, &'static str, &'a str);

/// The user's resources over the defaults. A default gives way to a value of the user's that it would contradict: with
/// `limits: {memory: 256Mi}` a default request of 512Mi would make the pod invalid.
pub(super) fn with_defaults(
    user: Resources,
    defaults: &[Default<'_>],
    prefix: &str,
    problems: &mut Problems,
) -> Resources {
    for (kind, list) in [("limits", &user.limits), ("requests", &user.requests)] {
        for (resource, amount) in list {
            let field = format!("{prefix}.{kind}.{resource}");
            if quantity::parse(&amount.0).is_none_or(|n| n < 0) {
                problems.add(&field, &amount.0, "write a quantity such as 500m or 1Gi");
            } else if !valid::label_key(resource) {
                problems.add(&field, resource, "write the name of a resource, for example cpu or memory");
            }
        }
    }
    let mut resources = user.clone();
    for (kind, resource, amount) in defaults {
        let (own, other, list) = match *kind {
            "limits" => (&user.limits, &user.requests, &mut resources.limits),
            _ => (&user.requests, &user.limits, &mut resources.requests),
        };
        if own.contains_key(*resource) {
            continue;
        }
        let contradicted = |bound: &Quantity| match (quantity::parse(&bound.0), quantity::parse(amount)) {
            (Some(bound), Some(default)) if *kind == "limits" => bound > default,
            (Some(bound), Some(default)) => bound < default,
            _ => false,
        };
        let bound = other.get(*resource).filter(|bound| contradicted(bound));
        let value = bound.map_or_else(|| (*amount).to_owned(), |bound| bound.0.clone());
        list.insert((*resource).to_owned(), Quantity(value));
    }
    for (resource, request) in &resources.requests {
        let limit = resources.limits.get(resource).and_then(|limit| quantity::parse(&limit.0));
        if matches!((quantity::parse(&request.0), limit), (Some(request), Some(limit)) if request > limit) {
            let remedy = "write at most what resources.limits has";
            problems.add(&format!("{prefix}.requests.{resource}"), &request.0, remedy);
        }
    }
    resources
}
