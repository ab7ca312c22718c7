//! The few fields of a workload that decisions need, borrowed from the request's bytes.
//!
//! An admission must not decode a whole pod template: at 14 KB that costs ten times the decision. Unknown fields are
//! skipped, never copied, so they cannot be lost either: what we answer is a patch, not an object.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::names;

/// A workload with a pod template at `/spec/template`.
#[derive(Debug, Deserialize)]
pub struct Workload<'a> {
    /// The workload's own metadata.
    #[serde(borrow, default)]
    pub metadata: Metadata<'a>,
    /// Where the template is.
    #[serde(borrow)]
    pub spec: WorkloadSpec<'a>,
}

/// The part of a workload's spec that is looked at.
#[derive(Debug, Deserialize)]
pub struct WorkloadSpec<'a> {
    /// The pod template.
    #[serde(borrow)]
    pub template: Template<'a>,
}

/// A pod template.
#[derive(Debug, Deserialize)]
pub struct Template<'a> {
    /// Labels and annotations of the pods.
    #[serde(borrow, default)]
    pub metadata: Option<Metadata<'a>>,
    /// The pods' spec.
    #[serde(borrow)]
    pub spec: PodSpec<'a>,
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
    /// How many fields are set in all, so that an emptied parent can be recognised.
    pub fields: usize,
}

/// Our own annotations. Foreign ones (`last-applied-configuration` is the bulk of many objects) are counted and skipped.
#[derive(Debug, Default)]
pub struct Annotations<'a> {
    /// Annotations whose name begins with our prefix.
    pub ours: BTreeMap<Text<'a>, Text<'a>>,
    /// Number of all annotations.
    pub total: usize,
}

/// A pod's spec.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec<'a> {
    /// Containers.
    #[serde(borrow, default)]
    pub containers: Vec<Container<'a>>,
    /// Init containers; those with `restartPolicy: Always` are side containers.
    #[serde(borrow, default)]
    pub init_containers: Option<Vec<Container<'a>>>,
    /// Node labels; tells Windows pods.
    #[serde(borrow, default)]
    pub node_selector: Option<BTreeMap<Text<'a>, Text<'a>>>,
    /// Operating system; tells Windows pods.
    #[serde(borrow, default)]
    pub os: Option<PodOs<'a>>,
    /// The account that the pod acts as.
    #[serde(borrow, default)]
    pub service_account_name: Option<Text<'a>>,
    /// Whether the pod gets that account's token; unset, the account decides.
    #[serde(default)]
    pub automount_service_account_token: Option<bool>,
    /// The uid of all containers that name none.
    #[serde(default)]
    pub security_context: Option<PodSecurity>,
    /// Volumes.
    #[serde(borrow, default)]
    pub volumes: Option<Vec<Volume<'a>>>,
    /// Secrets for pulling images.
    #[serde(borrow, default)]
    pub image_pull_secrets: Option<Vec<Reference<'a>>>,
}

/// The part of a pod's security context that concerns us.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurity {
    /// The uid.
    #[serde(default)]
    pub run_as_user: Option<i64>,
}

/// A reference by name.
#[derive(Debug, Deserialize)]
pub struct Reference<'a> {
    /// The name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
}

/// A volume; of its source only what ours have.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// An empty folder.
    #[serde(borrow)]
    pub empty_dir: Option<EmptyDir<'a>>,
    /// A ConfigMap.
    #[serde(borrow)]
    pub config_map: Option<ConfigMapVolume<'a>>,
    /// Several sources in one.
    #[serde(borrow)]
    pub projected: Option<Projected<'a>>,
}

/// An emptyDir.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmptyDir<'a> {
    /// Its size at most.
    #[serde(borrow)]
    pub size_limit: Option<Text<'a>>,
}

/// A projected volume.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Projected<'a> {
    /// Its sources.
    #[serde(borrow, deserialize_with = "null_as_default")]
    pub sources: Vec<ProjectedSource<'a>>,
}

/// One source of a projected volume.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectedSource<'a> {
    /// A ConfigMap.
    #[serde(borrow)]
    pub config_map: Option<ConfigMapVolume<'a>>,
}

/// A ConfigMap as a volume.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMapVolume<'a> {
    /// Its name.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Whether it may be absent.
    pub optional: Option<bool>,
    /// Which keys, and as which files.
    #[serde(borrow, deserialize_with = "null_as_default")]
    pub items: Vec<KeyToPath<'a>>,
}

/// A key and its file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyToPath<'a> {
    /// The key.
    #[serde(borrow)]
    pub key: Text<'a>,
    /// The file.
    #[serde(borrow)]
    pub path: Text<'a>,
}

/// A volume in a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount<'a> {
    /// The volume.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Where.
    #[serde(borrow)]
    pub mount_path: Text<'a>,
    /// Whether it can be written.
    pub read_only: Option<bool>,
    /// A part of it.
    #[serde(borrow)]
    pub sub_path: Option<Text<'a>>,
}

/// A pod's operating system.
#[derive(Debug, Deserialize)]
pub struct PodOs<'a> {
    /// `linux` or `windows`.
    #[serde(borrow, default)]
    pub name: Text<'a>,
}

/// A container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    /// Its name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// Its environment.
    #[serde(borrow, default)]
    pub env: Option<Vec<EnvEntry<'a>>>,
    /// Sources of more environment, which cannot be seen into.
    #[serde(default)]
    pub env_from: Option<Vec<IgnoredAny>>,
    /// `Always` on an init container makes it a native side container.
    #[serde(borrow, default)]
    pub restart_policy: Option<Text<'a>>,
    /// Its image.
    #[serde(borrow, default)]
    pub image: Text<'a>,
    /// Its entry point.
    #[serde(borrow, default, deserialize_with = "null_as_default")]
    pub command: Vec<Text<'a>>,
    /// Its arguments.
    #[serde(borrow, default, deserialize_with = "null_as_default")]
    pub args: Vec<Text<'a>>,
    /// Its volumes.
    #[serde(borrow, default)]
    pub volume_mounts: Option<Vec<Mount<'a>>>,
    /// Its security context, which an init container with the same image takes over.
    #[serde(default)]
    pub security_context: Option<serde_json::Value>,
}

/// One entry of a container's environment.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvEntry<'a> {
    /// Its name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// Its literal value; absent means empty, unless `value_from` is set.
    #[serde(borrow, default)]
    pub value: Option<Text<'a>>,
    /// Set where the value comes from elsewhere.
    #[serde(default)]
    pub value_from: Option<IgnoredAny>,
}

impl<'a> Workload<'a> {
    /// Name, or `generateName` without its dash.
    pub fn name(&self) -> &str {
        match (self.metadata.name.as_deref(), self.metadata.generate_name.as_deref()) {
            (Some(name), _) if !name.is_empty() => name,
            (_, Some(prefix)) => prefix.strip_suffix('-').unwrap_or(prefix),
            _ => "",
        }
    }

    /// The template's annotations of ours, then the workload's: the template's is the more specific one.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let template = self.spec.template.metadata.as_ref().and_then(|m| m.annotation(name));
        template.or_else(|| self.metadata.annotation(name))
    }

    /// Whether the pods run on Windows, whose images know no `/tmp/ca-bundle` and no agent of ours.
    pub fn is_windows(&self) -> bool {
        let spec = &self.spec.template.spec;
        let selected = spec.node_selector.as_ref().and_then(|s| s.get("kubernetes.io/os"));
        spec.os.as_ref().is_some_and(|os| &*os.name == "windows") || selected.is_some_and(|os| &**os == "windows")
    }

    /// The account that the pods act as.
    pub fn service_account(&self) -> &str {
        let name = self.spec.template.spec.service_account_name.as_deref().unwrap_or_default();
        if name.is_empty() { "default" } else { name }
    }

    /// Whether the pods have a service account token, where `automounts` says what the account does by itself.
    pub fn has_token(&self, automounts: bool) -> bool {
        let spec = &self.spec.template.spec;
        let mounted = |container: &Container<'_>| {
            let mounts = container.volume_mounts.iter().flatten();
            mounts.into_iter().any(|m| m.mount_path.trim_end_matches('/') == names::TOKEN_FOLDER)
        };
        spec.automount_service_account_token.unwrap_or(automounts) || spec.containers.iter().any(mounted)
    }

    /// A label of the template.
    pub fn template_label(&self, name: &str) -> Option<&str> {
        self.spec.template.metadata.as_ref().and_then(|m| m.label(name))
    }
}

impl Metadata<'_> {
    /// One of our annotations.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref().and_then(|a| a.ours.get(name)).map(|v| &**v)
    }

    /// A label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref().and_then(|l| l.get(name)).map(|v| &**v)
    }
}

/// A string that borrows from the input wherever it has no escapes.
///
/// `BTreeMap<Cow<str>, Cow<str>>` would copy every key and value: serde borrows a `Cow` only as a direct field.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(v.to_owned())))
            }
            fn visit_string<E>(self, v: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(v)))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Annotations<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OursVisitor;
        impl<'de> Visitor<'de> for OursVisitor {
            type Value = Annotations<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of annotations")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut out = Annotations::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    out.total += 1;
                    if key.starts_with(names::PREFIX) {
                        out.ours.insert(key, map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(out)
            }
        }
        deserializer.deserialize_map(OursVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Metadata<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetadataVisitor;
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
                        "annotations" => out.annotations = map.next_value()?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(out)
            }
        }
        deserializer.deserialize_map(MetadataVisitor)
    }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
