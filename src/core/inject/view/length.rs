//! How long a text is, without keeping it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The bytes of a text; none for what is no text. The text itself is never copied to a place of its own.
pub(super) struct Length(pub usize);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LengthVisitor)
    }
}

struct LengthVisitor;

impl<'de> Visitor<'de> for LengthVisitor {
    type Value = Length;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_str<E>(self, text: &str) -> Result<Length, E> {
        Ok(Length(text.len()))
    }
    fn visit_unit<E>(self) -> Result<Length, E> {
        Ok(Length(0))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Length, E> {
        Ok(Length(0))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Length, E> {
        Ok(Length(0))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Length, E> {
        Ok(Length(0))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Length, E> {
        Ok(Length(0))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Length, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Length(0))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Length, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Length(0))
    }
}
