//! JSON in which a name comes twice in one object is refused: of two values the decoder would take the
//! last one in silence, and another reader the first.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Reads any JSON and keeps nothing of it.
pub(super) struct Once;

impl<'de> DeserializeSeed<'de> for Once {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
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

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut names = Names::default();
        while let Some(name) = entries.next_key_seed(Name)? {
            if let Some(name) = names.again(name) {
                return Err(A::Error::custom(format!("the field {name:?} comes twice")));
            }
            entries.next_value_seed(Self)?;
        }
        Ok(())
    }
}

/// Reads a name, which is a part of the body as it came unless something in it is escaped.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// The names of one object so far. Those of the protocol have few, and a report has a thousand of them.
#[derive(Default)]
struct Names<'de> {
    first: [Option<Cow<'de, str>>; 8],
    more: BTreeSet<Cow<'de, str>>,
}

impl<'de> Names<'de> {
    /// Takes a name in, or gives it back when it was there before.
    fn again(&mut self, name: Cow<'de, str>) -> Option<Cow<'de, str>> {
        for place in &mut self.first {
            match place {
                Some(known) if *known == name => return Some(name),
                Some(_) => {}
                None => {
                    *place = Some(name);
                    return None;
                }
            }
        }
        if self.more.contains(&name) {
            return Some(name);
        }
        self.more.insert(name);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(), String> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = Once.deserialize(&mut reader);
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_may_come_in_two_objects_and_not_twice_in_one() {
        let good = r#"[{"a":1,"b":{"a":[null,true,-1,1.5,"a"]}},{"a":2},18446744073709551615]"#;
        assert_eq!(read(good), Ok(()));
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[[{"x":{"a":{},"b":1,"a":[]}}]]"#,
            r#"{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"a":1}"#,
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains("the field \"a\" comes twice"), "{error}");
        }
        let late =
            read(r#"{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"i":1,"x":0}"#);
        assert!(late.unwrap_err().contains("the field \"i\" comes twice"));
    }
}
