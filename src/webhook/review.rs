//! An AdmissionReview in, an AdmissionReview out: only the fields that matter, borrowed from the request's bytes.
//!
//! A typed decode of the whole object costs ten times the decision, and a typed encode loses fields that our types do
//! not know (azure-workload-identity#1759): what goes back is a patch, never an object. Half the cost of a review is to
//! walk over its bytes, so that the object is read in the same pass as the review around it.

use std::fmt;
use std::marker::PhantomData;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::core::inject::view::{Fields, Metadata, NonNull, Text, Workload};
use crate::core::selection::kind::Kind;
use crate::names;
use crate::webhook::outcome::place;

/// The request of an AdmissionReview; `Object` is what the new object is read as, `Old` the old one.
#[derive(Debug)]
pub(super) struct Request<'a, Object, Old> {
    pub uid: Text<'a>,
    pub kind: GroupKind<'a>,
    /// The object's own namespace may be absent on create; this one is not.
    pub namespace: Text<'a>,
    pub name: Text<'a>,
    pub operation: Text<'a>,
    /// Empty for the object itself.
    sub_resource: Text<'a>,
    pub dry_run: Option<bool>,
    user_info: UserInfo<'a>,
    pub object: Option<Object>,
    old_object: Option<Old>,
}

/// A request whose object was read together with it: one pass over the bytes.
pub(super) type WorkloadRequest<'a> = Request<'a, Workload<'a>, IgnoredAny>;
/// A request whose objects were skipped, since the object is none that we know.
pub(super) type IgnoredRequest<'a> = Request<'a, IgnoredAny, IgnoredAny>;

/// What an object of a request is read as, once its kind is known.
pub(super) trait Readable<'de>: Sized {
    /// Reads it; `None` for `null`, and for what cannot be read as this.
    fn read<D: Deserializer<'de>>(kind: Option<Kind>, deserializer: D) -> Result<Option<Self>, D::Error>;
}

impl<'de> Readable<'de> for Workload<'de> {
    fn read<D: Deserializer<'de>>(kind: Option<Kind>, deserializer: D) -> Result<Option<Self>, D::Error> {
        match kind {
            Some(kind) => Workload::read_optional(kind, deserializer),
            None => IgnoredAny::deserialize(deserializer).map(|_| None),
        }
    }
}

impl<'de> Readable<'de> for IgnoredAny {
    fn read<D: Deserializer<'de>>(_: Option<Kind>, deserializer: D) -> Result<Option<Self>, D::Error> {
        Self::deserialize(deserializer).map(Some)
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct GroupKind<'a> {
    #[serde(borrow, default, deserialize_with = "non_null")]
    pub group: Text<'a>,
    #[serde(borrow, default, deserialize_with = "non_null")]
    pub kind: Text<'a>,
}

impl GroupKind<'_> {
    fn known(&self) -> Option<Kind> {
        Kind::of(&self.group, &self.kind)
    }
}

#[derive(Debug, Default, Deserialize)]
struct UserInfo<'a> {
    #[serde(borrow, default, deserialize_with = "non_null")]
    username: Text<'a>,
}

fn non_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Text<'de>, D::Error> {
    NonNull::deserialize(deserializer).map(|NonNull(text)| text)
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

impl<'de: 'a, 'a, Object: Readable<'de>, Old: Readable<'de>> Deserialize<'de> for Request<'a, Object, Old> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RequestVisitor(PhantomData))
    }
}

struct RequestVisitor<'a, Object, Old>(PhantomData<Request<'a, Object, Old>>);

impl<'de: 'a, 'a, Object: Readable<'de>, Old: Readable<'de>> Visitor<'de> for RequestVisitor<'a, Object, Old> {
    type Value = Request<'a, Object, Old>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request of an AdmissionReview")
    }

    /// An API server writes the kind before the objects, which is what lets them be read in the same pass. Where it comes
    /// later they are skipped, and the review is answered as one whose object cannot be read.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut request = Request {
            uid: Text::default(),
            kind: GroupKind::default(),
            namespace: Text::default(),
            name: Text::default(),
            operation: Text::default(),
            sub_resource: Text::default(),
            dry_run: None,
            user_info: UserInfo::default(),
            object: None,
            old_object: None,
        };
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match &*key {
                "uid" => request.uid = map.next_value::<NonNull<'de>>()?.0,
                "kind" => request.kind = map.next_value::<Fields<_>>()?.0,
                "namespace" => request.namespace = map.next_value::<NonNull<'de>>()?.0,
                "name" => request.name = map.next_value::<NonNull<'de>>()?.0,
                "operation" => request.operation = map.next_value::<NonNull<'de>>()?.0,
                "subResource" => request.sub_resource = map.next_value::<NonNull<'de>>()?.0,
                "dryRun" => request.dry_run = map.next_value()?,
                "userInfo" => request.user_info = map.next_value::<Fields<_>>()?.0,
                "object" => request.object = map.next_value_seed(WorkloadOfKind(request.kind.known(), PhantomData))?,
                "oldObject" => {
                    request.old_object = map.next_value_seed(WorkloadOfKind(request.kind.known(), PhantomData))?
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(request)
    }
}

/// Reads an object as one of a kind.
struct WorkloadOfKind<Object>(Option<Kind>, PhantomData<Object>);

impl<'de, Object: Readable<'de>> DeserializeSeed<'de> for WorkloadOfKind<Object> {
    type Value = Option<Object>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Object::read(self.0, deserializer)
    }
}

impl<'a, Object: Readable<'a>, Old: Readable<'a>> Request<'a, Object, Old> {
    /// Reads a review.
    pub fn parse(body: &'a [u8]) -> Result<Self, NotAReview> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", bound = "Object: Readable<'de>, Old: Readable<'de>")]
        struct Review<'a, Object, Old> {
            #[serde(borrow, default, deserialize_with = "non_null")]
            api_version: Text<'a>,
            #[serde(borrow, default, deserialize_with = "non_null")]
            kind: Text<'a>,
            #[serde(borrow, default = "none")]
            request: Option<Request<'a, Object, Old>>,
        }
        let Fields(review): Fields<Review<'a, Object, Old>> = serde_json::from_slice(body)?;
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

    /// Whether this is a kind that is wired, on its way in. What has no second chance cannot be changed later.
    pub fn is_ours(&self) -> bool {
        let on_its_way = |kind: Kind| match &*self.operation {
            "CREATE" => true,
            "UPDATE" => kind.template_is_mutable(),
            _ => false,
        };
        self.sub_resource.is_empty() && self.kind.known().is_some_and(on_its_way)
    }

    /// Whether `user` sent this.
    pub fn is_from(&self, user: &str) -> bool {
        &*self.user_info.username == user
    }
}

/// Whether a request leaves the touch annotation as it was.
pub(super) fn is_untouched(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct TouchedObject<'a> {
        #[serde(borrow, default)]
        metadata: Metadata<'a>,
    }
    impl<'de> Readable<'de> for TouchedObject<'de> {
        fn read<D: Deserializer<'de>>(_: Option<Kind>, deserializer: D) -> Result<Option<Self>, D::Error> {
            Option::deserialize(deserializer)
        }
    }
    let Ok(request) = Request::<'_, TouchedObject<'_>, TouchedObject<'_>>::parse(body) else { return true };
    let touch = |object: &Option<TouchedObject<'_>>| {
        object.as_ref().and_then(|o| o.metadata.annotation(names::ANNOTATION_TOUCH)).map(str::to_owned)
    };
    touch(&request.object) == touch(&request.old_object)
}

fn none<T>() -> Option<T> {
    None
}

/// The answer: always allowed. It is put together by hand: what base64 has needs no escape, and a string that is serialized is
/// looked through for what does.
pub(super) fn answer(uid: &str, patch: &[json_patch::PatchOperation], warnings: &[String]) -> Vec<u8> {
    // Strings and JSON values in structs: serialization cannot fail. Should it, no patch is the harmless answer.
    let mut operations = Vec::with_capacity(if patch.is_empty() { 0 } else { PATCH });
    if !patch.is_empty() && serde_json::to_writer(&mut operations, patch).is_err() {
        operations.clear();
    }
    let mut answer = String::with_capacity(HEAD + operations.len().div_ceil(3) * 4);
    answer.push_str(r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"#);
    answer.push_str(&serde_json::to_string(uid).unwrap_or_default());
    answer.push_str(r#","allowed":true"#);
    if !operations.is_empty() {
        answer.push_str(r#","patchType":"JSONPatch","patch":""#);
        BASE64_STANDARD.encode_string(&operations, &mut answer);
        answer.push('"');
    }
    if !warnings.is_empty() {
        answer.push_str(r#","warnings":"#);
        answer.push_str(&serde_json::to_string(warnings).unwrap_or_default());
    }
    answer.push_str("}}");
    answer.into_bytes()
}

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
const MAX_UID: usize = 128;
/// Bytes of an answer beside the patch, and of most patches: room that is taken at once.
const HEAD: usize = 256;
const PATCH: usize = 8 << 10;
