//! The clocks: that by which leases count, and that which people see.

use jiff::Timestamp;
use quorate_agent::machine::{Discipline, discipline};
use rustix::time::{ClockId, clock_gettime};

use super::Finding;

/// Where the kernel says what it counts.
const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// Sources that are slow to read or coarse; the kernel falls back on them when a better one is unsteady.
const POOR: [&str; 4] = ["jiffies", "acpi_pm", "hpet", "refined-jiffies"];
/// 2020-01-01; no machine has run this program before.
const EPOCH_MIN: i64 = 1_577_836_800;
/// The drift that the arithmetic of leases allows, in parts per million, and half of it.
const DRIFT_MAX_PPM: f64 = 10_000.0;
const DRIFT_WARN_PPM: f64 = 5_000.0;

pub(super) fn findings() -> Vec<Finding> {
    vec![
        boot_time(),
        source(std::fs::read_to_string(SOURCE).ok().as_deref()),
        wall(Timestamp::now()),
        correction(discipline()),
    ]
}

/// The clock of leases: it counts while the machine is suspended.
fn boot_time() -> Finding {
    let seconds = |clock| clock_gettime(clock).tv_sec;
    let (boot, running) = (seconds(ClockId::Boottime), seconds(ClockId::Monotonic));
    let suspended = boot - running;
    Finding::ok(
        "lease clock",
        if suspended > 1 {
            format!("CLOCK_BOOTTIME, {boot} s since boot, {suspended} s of them suspended")
        } else {
            format!("CLOCK_BOOTTIME, {boot} s since boot")
        },
    )
}

fn source(named: Option<&str>) -> Finding {
    const CHECK: &str = "clock source";
    match named.map(str::trim) {
        None | Some("") => {
            Finding::unknown(CHECK, "the kernel does not say", "nothing depends on it")
        }
        Some(name) if POOR.contains(&name) => Finding::warn(
            CHECK,
            format!("{name}, which is slow to read, or coarse"),
            "the kernel's log says why no better one is used (dmesg, clocksource)",
        ),
        Some(name) => Finding::ok(CHECK, name),
    }
}

pub(super) fn wall(now: Timestamp) -> Finding {
    const CHECK: &str = "wall clock";
    if now.as_second() < EPOCH_MIN {
        return Finding::warn(
            CHECK,
            format!("{now} is before 2020"),
            "set it: leases do not need it, but times that are shown are wrong",
        );
    }
    Finding::ok(CHECK, format!("{now:.0}"))
}

/// The correction is also a hint at how far the oscillator is off.
fn correction(told: std::io::Result<Discipline>) -> Finding {
    const CHECK: &str = "clock rate";
    let Discipline {
        synchronized,
        correction_ppm,
    } = match told {
        Ok(told) => told,
        Err(error) => {
            return Finding::unknown(
                CHECK,
                format!("the kernel does not say: {error}"),
                "compare with another clock over a minute; 1 % is what leases allow",
            );
        }
    };
    let found = format!("corrected by {correction_ppm:+.1} ppm");
    let limit = "leases allow 10,000 ppm";
    if correction_ppm.abs() > DRIFT_MAX_PPM {
        Finding::bad(
            CHECK,
            format!("{found}; {limit}"),
            "something sets a rate that cannot be right (adjtimex, tick); take it back",
        )
    } else if correction_ppm.abs() > DRIFT_WARN_PPM {
        Finding::warn(
            CHECK,
            format!("{found}; {limit}"),
            "replace the clock's source, or this machine",
        )
    } else if synchronized {
        Finding::ok(CHECK, format!("{found}, synchronized"))
    } else {
        Finding::unknown(
            CHECK,
            format!("{found}, not known to be synchronized"),
            "leases do not need it; for times that are shown run an NTP daemon",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_leases_allow() {
        let told = |synchronized, correction_ppm| {
            correction(Ok(Discipline {
                synchronized,
                correction_ppm,
            }))
            .state
        };
        assert_eq!(told(true, -37.5), State::Ok);
        assert_eq!(told(false, 0.0), State::Unknown);
        assert_eq!(told(true, 6_000.0), State::Warn);
        assert_eq!(told(true, -10_100.0), State::Bad);
        assert_eq!(
            correction(Err(std::io::ErrorKind::PermissionDenied.into())).state,
            State::Unknown
        );
    }

    #[test]
    fn a_year_that_cannot_be_and_a_poor_source_are_told() {
        assert_eq!(wall(Timestamp::UNIX_EPOCH).state, State::Warn);
        assert_eq!(wall(Timestamp::now()).state, State::Ok);
        assert_eq!(source(Some("tsc\n")).state, State::Ok);
        assert_eq!(source(Some("hpet\n")).state, State::Warn);
        assert_eq!(source(None).state, State::Unknown);
    }
}
