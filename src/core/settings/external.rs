//! A server that somebody else runs, as the spec has it.

use super::Problems;
use crate::api::External;

/// A server that somebody else runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExternalSettings {
    /// The address, without a slash at its end; `None` where it is missing or refused, which is a problem.
    pub tracking_uri: Option<String>,
    /// The workspace that traces go to, where the server has workspaces.
    pub workspace: Option<String>,
}

pub(super) fn external(spec: Option<External>, is_needed: bool, problems: &mut Problems) -> ExternalSettings {
    let Some(External { tracking_uri, workspace }) = spec else {
        if is_needed {
            let remedy = "give mlflow.external a trackingURI, the address that agents send traces to";
            problems.add("spec.mlflow.external", "", remedy);
        }
        return ExternalSettings::default();
    };
    let uri = tracking_uri.trim_end_matches('/');
    if let Some((_, host)) = uri.rsplit_once('@') {
        // The user name and the password stay out of status and logs.
        let remedy = "write the address without user name and password; everybody can read this object";
        problems.add("spec.mlflow.external.trackingURI", host, remedy);
        return ExternalSettings { tracking_uri: None, workspace };
    }
    ExternalSettings { tracking_uri: Some(uri.to_owned()), workspace }
}
