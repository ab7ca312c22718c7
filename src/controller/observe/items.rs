//! Lists, read item by item: a page of 25 objects may have 35 MB, and several passes read one at a time (review B3).

/// Most bytes of an item. The API server stores none that is half as large.
pub(super) const MAX_ITEM_BYTES: usize = 4 << 20;
/// How deep in the text items lie: in the list, in its array.
const IN_ARRAY: usize = 2;

/// Takes the items out of a list as its text arrives. What is left is the list with an empty array.
#[derive(Debug, Default)]
pub(super) struct Items {
    /// The list without its items.
    list: Vec<u8>,
    /// What has arrived of an item, up to [`MAX_ITEM_BYTES`].
    item: Vec<u8>,
    /// Bytes of it that have arrived.
    size: usize,
    /// Objects and arrays that are open.
    depth: usize,
    /// An array of the list is open: `items` is the only one that a list has.
    in_array: bool,
    in_text: bool,
    /// The next character of a text stands for itself.
    escaped: bool,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// Its text.
    Whole(&'a [u8]),
    /// It has so many bytes that it was not kept.
    TooLarge(usize),
}

impl Items {
    /// The next part of the text; `each` gets every item that ends in it.
    pub(super) fn feed<E>(&mut self, text: &[u8], mut each: impl FnMut(Item<'_>) -> Result<(), E>) -> Result<(), E> {
        for byte in text {
            let was_inside = self.is_inside();
            self.follow(*byte);
            let is_inside = self.is_inside();
            if was_inside || is_inside {
                self.size += 1;
                if self.size <= MAX_ITEM_BYTES {
                    self.item.push(*byte);
                }
            } else if !(*byte == b',' && self.in_array && self.depth == IN_ARRAY) {
                self.list.push(*byte);
            }
            if was_inside && !is_inside {
                let size = std::mem::take(&mut self.size);
                each(if size > MAX_ITEM_BYTES { Item::TooLarge(size) } else { Item::Whole(&self.item) })?;
                self.item.clear();
            }
        }
        Ok(())
    }

    /// The list with an empty array, once all of it has arrived.
    pub(super) fn list(&self) -> &[u8] {
        &self.list
    }

    fn is_inside(&self) -> bool {
        self.in_array && self.depth > IN_ARRAY
    }

    fn follow(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_text => self.escaped = true,
            b'"' => self.in_text = !self.in_text,
            _ if self.in_text => {}
            b'{' | b'[' => {
                self.in_array |= byte == b'[' && self.depth + 1 == IN_ARRAY;
                self.depth += 1;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.in_array &= self.depth >= IN_ARRAY;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The items of a list whose text arrives in parts of these sizes, and what is left.
    fn taken(text: &str, sizes: &[usize]) -> (Vec<Value>, Value) {
        let (mut items, mut found, mut rest) = (Items::default(), Vec::new(), text.as_bytes());
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            rest = after;
            let each = |item: Item<'_>| match item {
                Item::Whole(text) => serde_json::from_slice(text).map(|value| found.push(value)),
                Item::TooLarge(size) => panic!("{size}"),
            };
            items.feed(part, each).unwrap();
        }
        (found, serde_json::from_slice(items.list()).unwrap())
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[\\[\\]{}\",\\\\a\u{e9} ]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                vec(("[\\]}\",\\\\b]{0,3}", inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        vec(("[a-c\"\\\\]{1,3}", value()), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn the_items_are_those_of_the_whole_text(
            items in vec(object(), 0..5), next in "[\\[{\"\\\\,a]{0,6}", sizes in vec(1_usize..40, 1..6), pretty: bool,
        ) {
            let list = json!({"kind": "PodList", "metadata": {"continue": next, "x": {}}, "items": items, "more": {"a": 1}});
            let text = if pretty { serde_json::to_string_pretty(&list).unwrap() } else { list.to_string() };
            let (found, rest) = taken(&text, &sizes);
            prop_assert_eq!(&Value::from(found), &list["items"]);
            let mut without = list;
            without["items"] = json!([]);
            prop_assert_eq!(rest, without);
        }
    }

    #[test]
    fn an_item_that_is_too_large_is_counted_and_not_kept() {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_ITEM_BYTES));
        let text = format!("{{\"items\":[{{}},{large},{{}}]}}");
        let (mut items, mut found) = (Items::default(), Vec::new());
        for part in text.as_bytes().chunks(100_000) {
            let each = |item: Item<'_>| {
                found.push(match item {
                    Item::Whole(text) => text.len(),
                    Item::TooLarge(size) => size,
                });
                Ok::<_, ()>(())
            };
            items.feed(part, each).unwrap();
            assert!(items.item.len() <= MAX_ITEM_BYTES);
        }
        assert_eq!(found, [2, large.len(), 2]);
    }
}
