//! One document's value, read as kubectl reads it.

use std::cell::RefCell;
use std::fmt;

use serde::Deserialize;
use serde::de::value::EnumAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_yaml::Value as Yaml;

/// A value, and the fields that stood in it more than once.
pub(super) struct Read {
    pub value: Value,
    pub repeated: Vec<String>,
}

/// Reads a YAML document.
pub(super) fn yaml(document: serde_yaml::Deserializer<'_>) -> anyhow::Result<Read> {
    let repeated = RefCell::default();
    let mut yaml = Seed::root(&repeated).deserialize(document)?;
    // Only YAML's own value knows merge keys (`<<: *defaults`).
    yaml.apply_merge()?;
    let mut value = serde_json::to_value(yaml)?;
    octal_modes(&mut value, false);
    Ok(Read { value, repeated: repeated.into_inner() })
}

/// A JSON document.
pub(super) struct Json(pub Read);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let repeated = RefCell::default();
        let yaml = Seed::root(&repeated).deserialize(deserializer)?;
        let value = serde_json::to_value(yaml).map_err(D::Error::custom)?;
        Ok(Self(Read { value, repeated: repeated.into_inner() }))
    }
}

/// kubectl reads YAML 1.1, where a plain `0440` is octal; our parser reads 1.2, where it is text. Only the file modes of
/// volumes are written so, and there they are never text.
fn octal_modes(value: &mut Value, in_volumes: bool) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let octal = value.as_str().filter(|_| in_volumes && (key == "mode" || key == "defaultMode"));
                match octal.and_then(|text| i64::from_str_radix(text, 8).ok()) {
                    Some(mode) => *value = Value::from(mode),
                    None => octal_modes(value, key == "volumes" || in_volumes && key != "metadata"),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| octal_modes(v, in_volumes)),
        _ => {}
    }
}

/// Reads any value. Of a key that stands twice the last one counts, as Helm and kubectl have it; charts render such now and then.
#[derive(Clone, Copy)]
struct Seed<'s> {
    path: &'s Path<'s>,
    repeated: &'s RefCell<Vec<String>>,
}

/// Where a value stands in its document.
enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Path::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl<'s> Seed<'s> {
    fn root(repeated: &'s RefCell<Vec<String>>) -> Self {
        Self { path: &Path::Root, repeated }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Yaml;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Yaml;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Yaml, E> {
        Ok(Yaml::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Yaml, E> {
        Ok(Yaml::Number(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Yaml, E> {
        Ok(Yaml::Number(v.into()))
    }
    // Beyond 64 bits kubectl goes on with a fraction.
    fn visit_i128<E>(self, v: i128) -> Result<Yaml, E> {
        Ok(Yaml::Number((v as f64).into()))
    }
    fn visit_u128<E>(self, v: u128) -> Result<Yaml, E> {
        Ok(Yaml::Number((v as f64).into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Yaml, E> {
        Ok(Yaml::Number(v.into()))
    }
    fn visit_str<E>(self, v: &str) -> Result<Yaml, E> {
        Ok(Yaml::String(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Yaml, E> {
        Ok(Yaml::String(v))
    }
    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }
    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
        self.deserialize(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Yaml, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(Seed { path: &Path::Index(self.path, list.len()), ..self })? {
            list.push(value);
        }
        Ok(Yaml::Sequence(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Yaml, A::Error> {
        let mut map = serde_yaml::Mapping::new();
        while let Some(key) = access.next_key::<Yaml>()? {
            let name = key.as_str().unwrap_or("?");
            let path = Path::Key(self.path, name);
            if map.contains_key(&key) {
                self.repeated.borrow_mut().push(path.to_string());
            }
            let value = access.next_value_seed(Seed { path: &path, ..self })?;
            map.insert(key, value);
        }
        Ok(Yaml::Mapping(map))
    }
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Yaml, A::Error> {
        Yaml::deserialize(EnumAccessDeserializer::new(tagged))
    }
}
