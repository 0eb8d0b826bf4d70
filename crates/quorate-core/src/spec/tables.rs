//! Tables read strictly. JSON allows a name twice in one object, where a plain map would silently
//! keep the last; and a list of values where an object belongs would be taken field by field in the
//! order of our source. Both would make something else of what somebody wrote.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// Reads a map whose names come once; for `#[serde(deserialize_with)]`.
pub(super) fn unique<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(Unique(PhantomData))
}

struct Unique<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for Unique<K, V>
where
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    type Value = BTreeMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(name) = entries.next_key::<K>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(format!("the name {name} comes twice")));
            }
            let value = entries.next_value()?;
            map.insert(name, value);
        }
        Ok(map)
    }
}

/// Implements both directions for structs with `#[serde(remote = "Self")]`, and reads them from named
/// fields only.
macro_rules! tables {
    ($($name:ident),+ $(,)?) => {
        $(
            impl serde::Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    Self::serialize(self, serializer)
                }
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    struct Named;

                    impl<'de> serde::de::Visitor<'de> for Named {
                        type Value = $name;

                        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                            f.write_str("a table")
                        }

                        fn visit_map<A: serde::de::MapAccess<'de>>(
                            self,
                            fields: A,
                        ) -> Result<$name, A::Error> {
                            $name::deserialize(serde::de::value::MapAccessDeserializer::new(fields))
                        }
                    }

                    deserializer.deserialize_map(Named)
                }
            }
        )+
    };
}

pub(super) use tables;

#[cfg(test)]
mod tests {
    use crate::spec::File;

    #[test]
    fn a_name_given_twice_is_refused_instead_of_the_last_one_counting() {
        for (text, name) in [
            (
                r#"{"service":{"a":{"command":["x"]},"a":{"command":["y"]}}}"#,
                "a",
            ),
            (
                r#"{"service":{"a":{"command":["x"],"env":{"P":"1","P":"2"}}}}"#,
                "P",
            ),
        ] {
            let error = serde_json::from_str::<File>(text).unwrap_err().to_string();
            assert!(
                error.contains(&format!("the name {name} comes twice")),
                "{error}"
            );
        }
        let error =
            serde_json::from_str::<File>(r#"{"service":{"a":{"command":["x"],"command":["y"]}}}"#);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("duplicate field `command`")
        );
    }

    #[test]
    fn a_list_in_the_place_of_a_table_is_refused_instead_of_taken_field_by_field() {
        for text in [
            r#"[]"#,
            r#"{"service":[]}"#,
            r#"{"service":{"a":[["x"]]}}"#,
            r#"{"service":{"a":{"command":["x"],"stop":["KILL","0s"]}}}"#,
            r#"{"service":{"a":{"command":["x"],"restart":{"on":[]}}}}"#,
            r#"{"service":{"a":{"command":["x"],"partitions":[["a"]]}}}"#,
            r#"{"service":{"a":{"command":["x"],"placement":[]}}}"#,
        ] {
            let error = serde_json::from_str::<File>(text).unwrap_err().to_string();
            assert!(error.contains("expected a table"), "{text}: {error}");
        }
    }

    #[test]
    fn a_table_of_the_ledger_reads_back_as_it_was() {
        let text = r#"{"service":{"a":{"command":["x"],"env":{"P":"1"},"stop":{"signal":"INT"},"partitions":{"range":"0..2"}}}}"#;
        let file: File = serde_json::from_str(text).unwrap();
        let bytes = rmp_serde::to_vec_named(&file).unwrap();
        assert_eq!(rmp_serde::from_slice::<File>(&bytes).unwrap(), file);
    }
}
