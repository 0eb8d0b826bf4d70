//! Values written as text in a file: spans of time, sizes, ranges.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a written value is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a {what}; write {example}")]
pub struct ValueError {
    /// What was expected.
    pub what: &'static str,
    /// What was found.
    pub given: String,
    /// How it is written.
    pub example: &'static str,
}

/// A span of time, written `500ms`, `10s`, `5m`, `1h`, `2d` or several of them, largest first: `1m30s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// The longest span that is accepted, one hundred years: it keeps every sum of spans exact.
pub const SPAN_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl FromStr for Span {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError {
            what: "span of time",
            given: text.to_owned(),
            example: "500ms, 10s, 5m, 1h, 2d or 1m30s",
        };
        let too_long = || ValueError {
            what: "span of time up to 36500d",
            given: text.to_owned(),
            example: "at most 36500d",
        };
        let mut rest = text;
        let mut millis: u64 = 0;
        let mut units = UNITS.as_slice();
        if rest.is_empty() {
            return Err(error());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let at = units
                .iter()
                .position(|(name, _)| *name == unit)
                .ok_or_else(error)?;
            let (_, scale) = units.get(at).copied().ok_or_else(error)?;
            // Every unit at most once and the largest first, so that 5s1m is seen as the slip it is.
            units = units.get(at + 1..).unwrap_or_default();
            if number.is_empty() {
                return Err(error());
            }
            // Digits only, so that nothing but its size can keep it from being read.
            let count: u64 = number.parse().map_err(|_| too_long())?;
            let part = count.checked_mul(scale).ok_or_else(too_long)?;
            millis = millis.checked_add(part).ok_or_else(too_long)?;
            rest = tail;
        }
        let span = Duration::from_millis(millis);
        if span > SPAN_MAX {
            Err(too_long())
        } else {
            Ok(Self(span))
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in UNITS {
            let count = millis / u128::from(scale);
            millis %= u128::from(scale);
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Span {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

/// A number of bytes, written `4096`, `64K`, `50M` or `2G` (powers of 1024).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

const SIZES: [(&str, u64); 4] = [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10), ("", 1)];

impl FromStr for ByteSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError {
            what: "number of bytes",
            given: text.to_owned(),
            example: "4096, 64K, 50M or 2G",
        };
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let (_, scale) = SIZES
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(error)?;
        let count: u64 = number.parse().map_err(|_| error())?;
        Ok(Self(count.checked_mul(*scale).ok_or_else(error)?))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, scale) in SIZES {
            if self.0 >= scale && self.0.is_multiple_of(scale) {
                return write!(f, "{}{unit}", self.0 / scale);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl TryFrom<String> for ByteSize {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_back_as_written() {
        for text in ["500ms", "10s", "1m30s", "2d3h", "0s", "1h"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn spans_that_could_be_misread_are_refused() {
        for bad in [
            "",
            "10",
            "-5s",
            "1y",
            "5m30",
            "5s1m",
            "1.5s",
            "s",
            "99999999999999999999s",
            "200000d",
        ] {
            let error = bad.parse::<Span>().unwrap_err().to_string();
            assert!(error.contains("is not a span of time"), "{error}");
        }
        for long in ["36501d", "99999999999999999999d", "18446744073709551615d"] {
            let error = long.parse::<Span>().unwrap_err().to_string();
            assert!(error.ends_with("write at most 36500d"), "{error}");
        }
        assert_eq!("36500d".parse(), Ok(Span(SPAN_MAX)));
    }

    #[test]
    fn sizes_read_back_as_written() {
        for text in ["50M", "4096K", "2G", "1"] {
            assert!(text.parse::<ByteSize>().is_ok());
        }
        assert_eq!("2048".parse::<ByteSize>().unwrap().to_string(), "2K");
        assert!("20T".parse::<ByteSize>().is_err());
        assert!("99999999999G".parse::<ByteSize>().is_err());
    }
}
