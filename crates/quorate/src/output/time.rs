//! Times for people: how long ago, how long still.

use std::time::Duration;

use jiff::Timestamp;

/// How long ago a moment in RFC 3339 was, such as `3m`; the text itself when it is none.
pub(crate) fn ago(time: &str) -> String {
    let Ok(then) = time.parse::<Timestamp>() else {
        return time.to_owned();
    };
    let seconds = Timestamp::now().as_second() - then.as_second();
    short(u64::try_from(seconds).unwrap_or(0))
}

/// How long it will still take, such as `2m10s`.
pub(crate) fn eta(left: Duration) -> String {
    short(left.as_secs().max(1))
}

fn short(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..600 => format!("{}m{}s", seconds / 60, seconds % 60),
        600..3_600 => format!("{}m", seconds / 60),
        3_600..36_000 => format!("{}h{}m", seconds / 3_600, seconds / 60 % 60),
        36_000..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short_and_grow_coarser() {
        let shown: Vec<String> = [0, 59, 61, 700, 3_700, 40_000, 200_000]
            .into_iter()
            .map(short)
            .collect();
        assert_eq!(shown, ["0s", "59s", "1m1s", "11m", "1h1m", "11h", "2d"]);
        assert_eq!(ago("no time"), "no time");
    }
}
