//! Rates (`20/s`) and shares (`20%`) as written in a file.

use std::fmt;
use std::time::Duration;

use super::values::ValueError;

/// So many per time, written `20/s`, `100/m` or `6/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    per: Duration,
}

impl Rate {
    /// Reads `20/s`.
    ///
    /// # Errors
    /// When it is not a whole number from 1 to 1,000,000 per `s`, `m` or `h`.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError {
            what: "rate",
            given: text.to_owned(),
            example: "a whole number per second, minute or hour, such as 20/s, 100/m or 6/h",
        };
        let (count, unit) = text.split_once('/').ok_or_else(error)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return Err(error()),
        };
        match digits(count) {
            Some(count @ 1..=1_000_000) => Ok(Self {
                count,
                per: Duration::from_secs(seconds),
            }),
            Some(_) | None => Err(error()),
        }
    }

    /// How many.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// In which time.
    #[must_use]
    pub const fn per(&self) -> Duration {
        self.per
    }

    /// Time between two of them when they are spaced evenly.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.per / self.count
    }
}

impl std::str::FromStr for Rate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::parse(text)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// A share in whole percent, written `20%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    /// Reads `20%`.
    ///
    /// # Errors
    /// When it is not a whole number from 0 to 100 and a percent sign.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let error = || ValueError {
            what: "share",
            given: text.to_owned(),
            example: "whole percent from 0% to 100%, such as 20%",
        };
        match text.strip_suffix('%').and_then(digits) {
            Some(percent @ 0..=100) => Ok(Self(percent)),
            Some(_) | None => Err(error()),
        }
    }

    /// The number of percent.
    #[must_use]
    pub const fn percent(self) -> u32 {
        self.0
    }

    /// Whether `part` is no more than this share of `whole`: exact, without rounding.
    #[must_use]
    pub const fn allows(self, part: u64, whole: u64) -> bool {
        part as u128 * 100 <= whole as u128 * self.0 as u128
    }
}

impl std::str::FromStr for Percent {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::parse(text)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A number of digits only: `parse` alone would also take `+5`.
fn digits(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_back_as_written() {
        for text in ["20/s", "100/m", "6/h", "1000000/s"] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Rate::parse("20/s").unwrap().interval(),
            Duration::from_millis(50)
        );
    }

    #[test]
    fn rates_and_shares_that_could_be_misread_are_refused() {
        for bad in [
            "",
            "20",
            "20/",
            "/s",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "20/d",
            "20 /s",
            "20/S",
            "9999999/s",
        ] {
            assert!(Rate::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "20", "%", "-1%", "101%", "2.5%", "20 %", "+1%", "1e1%"] {
            assert!(Percent::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_is_compared_without_rounding() {
        let fifth = Percent::parse("20%").unwrap();
        assert!(fifth.allows(2, 12));
        assert!(!fifth.allows(3, 12));
        assert!(fifth.allows(1, 5));
        assert!(!fifth.allows(1, 4));
        assert!(fifth.allows(0, 0));
        assert!(Percent::parse("100%").unwrap().allows(u64::MAX, u64::MAX));
        assert!(!Percent::parse("0%").unwrap().allows(1, u64::MAX));
    }
}
