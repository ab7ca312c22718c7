//! The few fields of a workload that decisions need, borrowed from the request's bytes.
//!
//! An admission must not decode a whole pod template: at 14 KB that costs ten times the decision. Unknown fields are
//! skipped, never copied, so they cannot be lost either: what we answer is a patch, not an object.

mod family;
mod length;
mod node;
mod os;
mod pod;
mod text;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use self::length::Length;
use crate::core::selection::kind::Kind;
use crate::names;
pub use node::{Affinity, NodeAffinity, NodeRequirement, NodeTerm, NodeTerms, PodOs, WindowsOptions};
pub use pod::{
    Amounts, ConfigMapVolume, Container, ContainerResources, Device, EmptyDir, EnvEntry, KeyToPath, Mount, PodSecurity,
    PodSpec, Projected, ProjectedSource, ReadOnly, Reference, TokenSource, Volume,
};
pub use text::Text;
pub(crate) use text::{NonNull, null_as_default};

/// A workload: its own metadata, and its pod template wherever its kind keeps it.
#[derive(Debug)]
pub struct Workload<'a> {
    /// Its kind.
    pub kind: Kind,
    /// The workload's own metadata.
    pub metadata: Metadata<'a>,
    /// The spec of its pods.
    pub pod: PodSpec<'a>,
    /// Volumes that a StatefulSet gives its pods beside the template's. Where names are equal, these win.
    pub claims: Vec<Named<'a>>,
    /// The template's metadata. A Pod has none beside its own.
    template: Option<Metadata<'a>>,
}

/// An object of which only the name matters.
#[derive(Debug, Deserialize)]
pub struct Named<'a> {
    /// Its metadata.
    #[serde(borrow, default)]
    pub metadata: Metadata<'a>,
}

/// Object metadata.
#[derive(Debug, Default)]
pub struct Metadata<'a> {
    /// `name`; empty on a create with `generateName`.
    pub name: Option<Text<'a>>,
    /// `generateName`.
    pub generate_name: Option<Text<'a>>,
    /// `namespace`; may be absent on create.
    pub namespace: Option<Text<'a>>,
    /// All labels.
    pub labels: Option<BTreeMap<Text<'a>, Text<'a>>>,
    /// Our annotations, and how many there are in all.
    pub annotations: Option<Annotations<'a>>,
    /// Who controls it.
    pub owner: Option<Owner<'a>>,
    /// How many fields are set in all, so that an emptied parent can be recognised.
    pub fields: usize,
}

/// An owner of an object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner<'a> {
    /// Group and version of its kind.
    #[serde(borrow)]
    pub api_version: Text<'a>,
    /// Its kind.
    #[serde(borrow)]
    pub kind: Text<'a>,
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Whether it is the one that controls the object.
    pub controller: Option<bool>,
}

/// Our own annotations and the few others that decisions need. The rest (`last-applied-configuration` is the bulk of many
/// objects) is counted and skipped.
#[derive(Debug, Default)]
pub struct Annotations<'a> {
    /// Annotations whose name begins with our prefix, and [`names::FOREIGN_ANNOTATIONS`].
    pub known: BTreeMap<Text<'a>, Text<'a>>,
    /// Number of all annotations.
    pub total: usize,
    /// Bytes of all names and values, as the API server limits them. Counted on a template, which gets our record.
    pub size: usize,
}

impl<'a> Workload<'a> {
    /// Reads a workload of a kind from JSON.
    pub fn parse(kind: Kind, json: &'a str) -> serde_json::Result<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let workload = Self::read(kind, &mut deserializer)?;
        deserializer.end()?;
        Ok(workload)
    }

    /// Reads a workload of a kind in one pass.
    pub fn read<D: Deserializer<'a>>(kind: Kind, deserializer: D) -> Result<Self, D::Error> {
        Self::read_optional(kind, deserializer)?.ok_or_else(|| D::Error::custom("there is no object"))
    }

    /// The same where there may be `null`.
    pub fn read_optional<D: Deserializer<'a>>(kind: Kind, deserializer: D) -> Result<Option<Self>, D::Error> {
        let of = |metadata, template, claims: Option<Vec<Named<'a>>>| {
            let Fields(Template { metadata: of_template, spec: Fields(pod) }) = template;
            let template = of_template.map(|OfTemplate(metadata)| metadata);
            Self { kind, metadata, pod, claims: claims.unwrap_or_default(), template }
        };
        Ok(match kind {
            Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Job => {
                Option::<Fields<Object<Metadata<'a>, Templated<'a>>>>::deserialize(deserializer)?
                    .map(|Fields(o)| of(o.metadata, o.spec.0.template, o.spec.0.volume_claim_templates))
            }
            Kind::CronJob => Option::<Fields<Object<Metadata<'a>, Scheduled<'a>>>>::deserialize(deserializer)?
                .map(|Fields(o)| of(o.metadata, o.spec.0.job_template.0.spec.0.template, None)),
            Kind::Pod => Option::<Fields<Object<OfTemplate<'a>, PodSpec<'a>>>>::deserialize(deserializer)?
                .map(|Fields(o)| of(o.metadata.0, Fields(Template { metadata: None, spec: o.spec }), None)),
        })
    }

    /// The object's name; empty on a create with `generateName`.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Whether a CronJob made it, so that its template is the CronJob's, wiring and all.
    pub fn is_of_cron_job(&self) -> bool {
        self.kind == Kind::Job && self.metadata.owner.as_ref().is_some_and(Owner::is_cron_job)
    }

    /// The metadata of the pod template, which for a Pod is its own.
    pub fn template_metadata(&self) -> Option<&Metadata<'a>> {
        match self.kind {
            Kind::Pod => Some(&self.metadata),
            Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::CronJob | Kind::Job => {
                self.template.as_ref()
            }
        }
    }

    /// The template's annotations of ours, then the workload's: the template's is the more specific one.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let template = self.template_metadata().and_then(|m| m.annotation(name));
        template.or_else(|| self.metadata.annotation(name))
    }

    /// Whether this only shows a pod that the kubelet runs from a file of the node: what is changed here reaches no process.
    pub fn is_mirror_pod(&self) -> bool {
        self.kind == Kind::Pod && self.metadata.annotation(names::ANNOTATION_MIRROR).is_some()
    }

    /// Whether the pods run on Windows.
    pub fn is_windows(&self) -> bool {
        self.pod.is_windows()
    }

    /// The account that the pods act as.
    pub fn service_account(&self) -> &str {
        let names = [&self.pod.service_account_name, &self.pod.service_account];
        names.into_iter().filter_map(Option::as_deref).find(|name| !name.is_empty()).unwrap_or("default")
    }

    /// A label of the template.
    pub fn template_label(&self, name: &str) -> Option<&str> {
        self.template_metadata().and_then(|m| m.label(name))
    }
}

impl Owner<'_> {
    fn is(&self, group: &str, kind: &str) -> bool {
        &*self.kind == kind && self.api_version.split_once('/').is_some_and(|(of, _)| of == group)
    }

    fn is_cron_job(&self) -> bool {
        self.is("batch", "CronJob")
    }
}

impl Metadata<'_> {
    /// One of the annotations that are kept.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref().and_then(|a| a.known.get(name)).map(|v| &**v)
    }

    /// A label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref().and_then(|l| l.get(name)).map(|v| &**v)
    }
}

/// Annotations of which the bytes are counted.
struct Measured<'a>(Annotations<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Annotations<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnnotationsVisitor { measures: false })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Measured<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnnotationsVisitor { measures: true }).map(Self)
    }
}

struct AnnotationsVisitor {
    measures: bool,
}

impl<'de> Visitor<'de> for AnnotationsVisitor {
    type Value = Annotations<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of annotations")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut out = Annotations::default();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            out.total += 1;
            out.size += key.len();
            if key.starts_with(names::PREFIX) || names::FOREIGN_ANNOTATIONS.contains(&&*key) {
                let value: Text<'de> = map.next_value()?;
                out.size += value.len();
                out.known.insert(key, value);
            } else if self.measures {
                out.size += map.next_value::<Length>()?.0;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(out)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Metadata<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MetadataVisitor { of_template: false })
    }
}

/// The metadata of a template.
struct OfTemplate<'a>(Metadata<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for OfTemplate<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MetadataVisitor { of_template: true }).map(Self)
    }
}

struct MetadataVisitor {
    of_template: bool,
}

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = Metadata<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("object metadata")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut out = Metadata::default();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            out.fields += 1;
            match &*key {
                "name" => out.name = map.next_value()?,
                "generateName" => out.generate_name = map.next_value()?,
                "namespace" => out.namespace = map.next_value()?,
                "labels" => out.labels = map.next_value()?,
                "annotations" if self.of_template => {
                    out.annotations = map.next_value::<Option<Measured<'de>>>()?.map(|Measured(all)| all);
                }
                "annotations" => out.annotations = map.next_value()?,
                "ownerReferences" => {
                    let owners: Option<Vec<Owner<'de>>> = map.next_value()?;
                    // `kubectl create job --from` names the CronJob without making it the controller.
                    let controls = |owner: &Owner<'_>| owner.controller == Some(true) || owner.is_cron_job();
                    out.owner = owners.into_iter().flatten().find(controls);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(out)
    }
}

/// Read from an object only. What serde derives takes a list for a struct, too, field by field, and a patch of ours would
/// not fit to that.
#[derive(Debug)]
pub(crate) struct Fields<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for FieldsVisitor<T> {
            type Value = Fields<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Fields)
            }
        }
        deserializer.deserialize_map(FieldsVisitor(PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(bound = "Meta: Deserialize<'de>, Spec: Deserialize<'de>")]
struct Object<Meta, Spec> {
    metadata: Meta,
    spec: Fields<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Templated<'a> {
    #[serde(borrow)]
    template: Fields<Template<'a>>,
    #[serde(borrow, default)]
    volume_claim_templates: Option<Vec<Named<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scheduled<'a> {
    #[serde(borrow)]
    job_template: Fields<JobTemplate<'a>>,
}

#[derive(Deserialize)]
struct JobTemplate<'a> {
    #[serde(borrow)]
    spec: Fields<Templated<'a>>,
}

#[derive(Deserialize)]
struct Template<'a> {
    #[serde(borrow, default)]
    metadata: Option<OfTemplate<'a>>,
    #[serde(borrow)]
    spec: Fields<PodSpec<'a>>,
}

#[cfg(test)]
mod tests;
