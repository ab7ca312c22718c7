//! An AdmissionReview in, an AdmissionReview out: only the fields that matter, borrowed from the request's bytes.
//!
//! A typed decode of the whole object costs ten times the decision, and a typed encode loses fields that our types do
//! not know (azure-workload-identity#1759): what goes back is a patch, never an object.

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::verdict::place;
use crate::core::view::{Metadata, Text, Workload};
use crate::names;

/// The request of an AdmissionReview.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    pub uid: Text<'a>,
    #[serde(borrow, default)]
    pub kind: Kind<'a>,
    /// The object's own namespace may be absent on create; this one is not.
    #[serde(borrow, default)]
    pub namespace: Text<'a>,
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(borrow, default)]
    pub operation: Text<'a>,
    #[serde(default)]
    pub dry_run: Option<bool>,
    #[serde(borrow, default)]
    user_info: UserInfo<'a>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    old_object: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Kind<'a> {
    #[serde(borrow, default)]
    pub group: Text<'a>,
    #[serde(borrow, default)]
    pub kind: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct UserInfo<'a> {
    #[serde(borrow, default)]
    username: Text<'a>,
}

/// Why a body is not a review.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAReview {
    #[error("the body is not an AdmissionReview: {}", place(.0))]
    Json(#[from] serde_json::Error),
    #[error("the body is not an AdmissionReview of admission.k8s.io/v1")]
    OtherKind,
    #[error("the AdmissionReview has no request")]
    NoRequest,
    #[error("request.uid is empty or longer than {MAX_UID} characters")]
    Uid,
}

impl<'a> Request<'a> {
    /// Reads a review as far as its parts; the object stays raw.
    pub fn parse(body: &'a [u8]) -> Result<Self, NotAReview> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Review<'a> {
            #[serde(borrow, default)]
            api_version: Text<'a>,
            #[serde(borrow, default)]
            kind: Text<'a>,
            #[serde(borrow, default)]
            request: Option<Request<'a>>,
        }
        let review: Review<'a> = serde_json::from_slice(body)?;
        if &*review.api_version != API_VERSION || &*review.kind != KIND {
            return Err(NotAReview::OtherKind);
        }
        let request = review.request.ok_or(NotAReview::NoRequest)?;
        // It comes back in the answer: whoever can reach us must not choose how much we send.
        if request.uid.is_empty() || request.uid.chars().count() > MAX_UID {
            return Err(NotAReview::Uid);
        }
        Ok(request)
    }

    /// Whether this is a kind that is wired, on its way in.
    pub fn is_ours(&self) -> bool {
        let kind = (&*self.kind.group, &*self.kind.kind);
        KINDS.contains(&kind) && OPERATIONS.contains(&&*self.operation)
    }

    /// The object, as far as decisions look at it.
    pub fn workload(&self) -> Result<Workload<'a>, serde_json::Error> {
        match self.object {
            Some(object) => serde_json::from_str(object.get()),
            None => Err(serde::de::Error::custom("request.object is missing")),
        }
    }

    /// Whether `user` sent this without changing the touch annotation: the controller's own patches must not come back
    /// changed, or removal could never succeed.
    pub fn is_untouched_write_of(&self, user: &str, new: &Workload<'_>) -> bool {
        #[derive(Deserialize)]
        struct Old<'a> {
            #[serde(borrow, default)]
            metadata: Metadata<'a>,
        }
        if &*self.user_info.username != user {
            return false;
        }
        let old: Option<Old<'_>> = self.old_object.and_then(|old| serde_json::from_str(old.get()).ok());
        let touch = old.as_ref().and_then(|old| old.metadata.annotation(names::ANNOTATION_TOUCH));
        new.metadata.annotation(names::ANNOTATION_TOUCH) == touch
    }

    /// Whether `user` sent this.
    pub fn is_from(&self, user: &str) -> bool {
        &*self.user_info.username == user
    }
}

/// The answer: always allowed.
pub(super) fn answer(uid: &str, patch: &[json_patch::PatchOperation], warnings: &[String]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Review<'a> {
        api_version: &'static str,
        kind: &'static str,
        response: Response<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Response<'a> {
        uid: &'a str,
        allowed: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        patch_type: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        patch: Option<ByteString>,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        warnings: &'a [String],
    }
    // Strings and JSON values in structs: serialization cannot fail. Should it, no patch is the harmless answer.
    let patch = (!patch.is_empty()).then(|| serde_json::to_vec(patch).ok()).flatten().map(ByteString);
    let patch_type = patch.is_some().then_some("JSONPatch");
    let response = Response { uid, allowed: true, patch_type, patch, warnings };
    serde_json::to_vec(&Review { api_version: API_VERSION, kind: KIND, response }).unwrap_or_default()
}

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
const MAX_UID: usize = 128;
const KINDS: [(&str, &str); 1] = [("apps", "Deployment")];
const OPERATIONS: [&str; 2] = ["CREATE", "UPDATE"];
