//! Rules on the labels of agents: `zone in (a, b)`, `disk != ssd`, `gpu`, `!gpu`.
//!
//! `containment` is a label that every agent has: the grade of its proven kill path (R19). A label of
//! that name which an agent gives itself is refused when it registers, and never looked at, because it
//! proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::record::Containment;

/// The label that the agent's proven kill path sets.
pub const CONTAINMENT_LABEL: &str = "containment";

/// Most bytes of a label or a value.
pub const LABEL_BYTES_MAX: usize = 200;

/// One rule on the labels of an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Constraint {
    label: String,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// The label has one of these values.
    In(BTreeSet<String>),
    /// The label is absent or has another value.
    NotIn(BTreeSet<String>),
    /// The label is there, whatever its value.
    Present,
    /// The label is not there.
    Absent,
}

/// Why a written rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// It has none of the forms.
    #[error(
        "{given:?} is not a rule; write zone in (a, b), zone not in (a), disk = ssd, disk != ssd, gpu or !gpu"
    )]
    Form {
        /// As written.
        given: String,
    },
    /// A label or value has characters that a rule cannot hold.
    #[error(
        "{name:?} is not a label or value; it has 1 to 200 letters, digits and -_./:@+, without spaces"
    )]
    Word {
        /// As written.
        name: String,
    },
    /// `containment` has four values.
    #[error("containment {found}; its values are kernel, cgroup, scan and cooperative")]
    Containment {
        /// What is wrong with it.
        found: String,
    },
}

impl Constraint {
    /// Reads a rule.
    ///
    /// # Errors
    /// When it has none of the forms, or a label or value has characters that are not allowed.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        let text = text.trim();
        let parsed = if let Some(label) = text.strip_prefix('!') {
            Self::new(label, Rule::Absent)
        } else if let Some((label, value)) = text.split_once("!=") {
            Self::new(label, Rule::NotIn(single(value)?))
        } else if let Some((label, value)) = text.split_once('=') {
            Self::new(label, Rule::In(single(value)?))
        } else if let Some(head) = text.strip_suffix(')') {
            let (head, values) = head.split_once('(').ok_or_else(|| form(text))?;
            let mut words = head.split_whitespace();
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some(label), Some("in"), None, None) => Self::new(label, Rule::In(many(values)?)),
                (Some(label), Some("not"), Some("in"), None) => {
                    Self::new(label, Rule::NotIn(many(values)?))
                }
                _ => Err(form(text)),
            }
        } else if text.contains(char::is_whitespace) || text.is_empty() {
            Err(form(text))
        } else {
            Self::new(text, Rule::Present)
        }?;
        parsed.check_containment()?;
        Ok(parsed)
    }

    fn new(label: &str, rule: Rule) -> Result<Self, ConstraintError> {
        Ok(Self {
            label: word(label)?,
            rule,
        })
    }

    fn check_containment(&self) -> Result<(), ConstraintError> {
        if self.label != CONTAINMENT_LABEL {
            return Ok(());
        }
        let found = match &self.rule {
            Rule::Present | Rule::Absent => "is a label of every agent".to_owned(),
            Rule::In(values) | Rule::NotIn(values) => {
                match values.iter().find(|value| grade(value).is_none()) {
                    None => return Ok(()),
                    Some(value) => format!("{value:?} does not exist"),
                }
            }
        };
        Err(ConstraintError::Containment { found })
    }

    /// Whether an agent with these labels and this proven kill path may hold the partition.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>, containment: Containment) -> bool {
        let value = if self.label == CONTAINMENT_LABEL {
            Some(grade_name(containment))
        } else {
            labels.get(&self.label).map(String::as_str)
        };
        match (&self.rule, value) {
            (Rule::In(values), Some(value)) => values.contains(value),
            (Rule::NotIn(values), Some(value)) => !values.contains(value),
            (Rule::Present, value) => value.is_some(),
            (Rule::Absent, value) => value.is_none(),
            (Rule::In(_), None) => false,
            (Rule::NotIn(_), None) => true,
        }
    }

    /// The label that it looks at.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }
}

impl std::str::FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        Self::parse(text)
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, sign, values) = match &self.rule {
            Rule::Present => return f.write_str(&self.label),
            Rule::Absent => return write!(f, "!{}", self.label),
            Rule::In(values) => ("in", "=", values),
            Rule::NotIn(values) => ("not in", "!=", values),
        };
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        match values.as_slice() {
            [one] => write!(f, "{} {sign} {one}", self.label),
            many => write!(f, "{} {verb} ({})", self.label, many.join(", ")),
        }
    }
}

/// The name of a grade, as it is written in rules and shown.
#[must_use]
pub const fn grade_name(containment: Containment) -> &'static str {
    match containment {
        Containment::Cooperative => "cooperative",
        Containment::Scan => "scan",
        Containment::Cgroup => "cgroup",
        Containment::Kernel => "kernel",
    }
}

fn grade(name: &str) -> Option<Containment> {
    [
        Containment::Cooperative,
        Containment::Scan,
        Containment::Cgroup,
        Containment::Kernel,
    ]
    .into_iter()
    .find(|grade| grade_name(*grade) == name)
}

fn form(given: &str) -> ConstraintError {
    ConstraintError::Form {
        given: given.to_owned(),
    }
}

fn single(value: &str) -> Result<BTreeSet<String>, ConstraintError> {
    Ok(BTreeSet::from([word(value)?]))
}

fn many(values: &str) -> Result<BTreeSet<String>, ConstraintError> {
    values.split(',').map(word).collect()
}

fn word(text: &str) -> Result<String, ConstraintError> {
    let name = text.trim();
    let allowed = |c: char| c.is_alphanumeric() || "-_./:@+".contains(c);
    if name.is_empty() || name.len() > LABEL_BYTES_MAX || !name.chars().all(allowed) {
        return Err(ConstraintError::Word {
            name: name.chars().take(LABEL_BYTES_MAX).collect(),
        });
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels() -> BTreeMap<String, String> {
        [("zone", "a"), ("disk", "ssd"), ("containment", "kernel")]
            .map(|(label, value)| (label.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn each_form_matches_what_it_says() {
        for (text, expected) in [
            ("zone in (a, b)", true),
            ("zone in (b)", false),
            ("zone not in (a)", false),
            ("zone not in (b,c)", true),
            ("disk = ssd", true),
            ("disk=hdd", false),
            ("disk != ssd", false),
            ("disk != hdd", true),
            ("zone", true),
            ("!zone", false),
            ("gpu", false),
            ("!gpu", true),
            ("gpu = yes", false),
            ("gpu != yes", true),
            ("gpu in (yes)", false),
            ("gpu not in (yes)", true),
        ] {
            let rule = Constraint::parse(text).unwrap();
            assert_eq!(
                rule.matches(&labels(), Containment::Scan),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn containment_is_what_was_proven_not_what_a_label_claims() {
        let rule = Constraint::parse("containment = kernel").unwrap();
        assert!(!rule.matches(&labels(), Containment::Scan));
        assert!(rule.matches(&BTreeMap::new(), Containment::Kernel));
        let rule = Constraint::parse("containment in (kernel, cgroup)").unwrap();
        assert!(rule.matches(&labels(), Containment::Cgroup));
    }

    #[test]
    fn rules_that_could_be_misread_are_refused_with_the_forms() {
        for bad in [
            "",
            " ",
            "zone in",
            "zone in a, b",
            "zone in (a",
            "zone in ()",
            "zone in (a,)",
            "zone notin (a)",
            "zone not (a)",
            "= ssd",
            "disk =",
            "disk == ssd",
            "disk = s s",
            "a b",
            "!",
            "!!gpu",
            "zone in (a) b",
            "zone > 3",
            "containment",
            "!containment",
            "containment = strong",
            "zone in (a)(b)",
            "disk = \u{202e}",
        ] {
            assert!(Constraint::parse(bad).is_err(), "{bad:?}");
        }
        let error = Constraint::parse("containment = strong")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("kernel, cgroup, scan and cooperative"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_as_the_same_rule(
            label in "[a-z][a-z0-9./-]{0,8}x", values in proptest::collection::vec("[a-zA-Z0-9_.:@+-]{1,6}", 1..4),
            form in 0u8..4,
        ) {
            let text = match form {
                0 => format!("{label} in ({})", values.join(", ")),
                1 => format!("{label} not in ({})", values.join(",")),
                2 => label,
                _ => format!("!{label}"),
            };
            let rule = Constraint::parse(&text).unwrap();
            prop_assert_eq!(Constraint::parse(&rule.to_string()).unwrap(), rule);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            if let Ok(rule) = Constraint::parse(&text) {
                let absent = rule.to_string().starts_with('!');
                prop_assert!(!absent || rule.matches(&BTreeMap::new(), Containment::Kernel));
            }
        }
    }
}
