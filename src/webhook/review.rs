//! An AdmissionReview in, an AdmissionReview out: only the fields that matter, borrowed from the request's bytes.
//!
//! A typed decode of the whole object costs ten times the decision, and a typed encode loses fields that our types do
//! not know (azure-workload-identity#1759): what goes back is a patch, never an object. Half the cost of a review is to
//! walk over its bytes, so that the object is read in the same pass as the review around it.

use k8s_openapi::ByteString;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::verdict::place;
use crate::core::view::{Metadata, Text, Workload};
use crate::names;

/// The request of an AdmissionReview; `Object` and `Old` are what the two objects are read as.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound = "Object: Deserialize<'de>, Old: Deserialize<'de>")]
pub(super) struct Request<'a, Object, Old> {
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
    #[serde(default = "none")]
    pub object: Option<Object>,
    #[serde(default = "none")]
    old_object: Option<Old>,
}

/// A request whose object was read together with it: one pass over the bytes.
pub(super) type Read<'a> = Request<'a, Workload<'a>, IgnoredAny>;
/// A request whose objects were skipped, since the object is none that we know.
pub(super) type Skipped<'a> = Request<'a, IgnoredAny, IgnoredAny>;

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

impl<'a, Object: Deserialize<'a>, Old: Deserialize<'a>> Request<'a, Object, Old> {
    /// Reads a review.
    pub fn parse(body: &'a [u8]) -> Result<Self, NotAReview> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", bound = "Object: Deserialize<'de>, Old: Deserialize<'de>")]
        struct Review<'a, Object, Old> {
            #[serde(borrow, default)]
            api_version: Text<'a>,
            #[serde(borrow, default)]
            kind: Text<'a>,
            #[serde(borrow, default = "none")]
            request: Option<Request<'a, Object, Old>>,
        }
        let review: Review<'a, Object, Old> = serde_json::from_slice(body)?;
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

    /// Whether `user` sent this.
    pub fn is_from(&self, user: &str) -> bool {
        &*self.user_info.username == user
    }
}

/// Whether a request leaves the touch annotation as it was.
pub(super) fn is_untouched(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Touched<'a> {
        #[serde(borrow, default)]
        metadata: Metadata<'a>,
    }
    let Ok(request) = Request::<'_, Touched<'_>, Touched<'_>>::parse(body) else { return true };
    let touch = |object: &Option<Touched<'_>>| {
        object.as_ref().and_then(|o| o.metadata.annotation(names::ANNOTATION_TOUCH)).map(str::to_owned)
    };
    touch(&request.object) == touch(&request.old_object)
}

fn none<T>() -> Option<T> {
    None
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
