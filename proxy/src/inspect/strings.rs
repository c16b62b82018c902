//! The texts of a JSON body, keys too, each with its place; nothing is built of the rest.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{found::Step, json::Key};

/// Err: it is no JSON, or nested too deep for its reader; what came before was given.
pub(crate) fn each(bytes: &[u8], give: &mut dyn FnMut(&[Step<'_>], &str)) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut path = Vec::new();
    Node { path: &mut path, give }.deserialize(&mut json)?;
    json.end()
}

struct Node<'w, 'g, 'de> {
    path: &'w mut Vec<Step<'de>>,
    give: &'w mut (dyn FnMut(&[Step<'_>], &str) + 'g),
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        (self.give)(self.path, text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { path, give } = self;
        for index in 0.. {
            path.push(Step::Index(index));
            let element = elements.next_element_seed(Node { path: &mut *path, give: &mut *give })?;
            path.pop();
            if element.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { path, give } = self;
        while let Some(key) = members.next_key_seed(Key)? {
            path.push(Step::Key(key.clone()));
            give(path, &key);
            members.next_value_seed(Node { path: &mut *path, give: &mut *give })?;
            path.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::found::{Step, pointer};

    #[test]
    fn every_text_has_its_place() {
        let mut texts = Vec::new();
        let json = r#"{"a":["x",1,{"b\"":"\u0079"}],"c":null}"#;
        super::each(json.as_bytes(), &mut |path, text| texts.push(format!("{}={text}", pointer(path)))).unwrap();
        assert_eq!(texts, ["/a=a", "/a/0=x", "/a/2/b\"=b\"", "/a/2/b\"=y", "/c=c"]);
        let mut none = |_: &[Step<'_>], _: &str| ();
        assert!(super::each(b"{", &mut none).is_err());
        assert!(super::each("[".repeat(1_000).as_bytes(), &mut none).is_err());
    }
}
