//! How the kernel corrects its clocks.

use std::io;
use std::mem::MaybeUninit;

/// Parts per million in the kernel's unit of a frequency, which has 16 binary places.
const FREQUENCY_UNIT: f64 = 65_536.0;
/// Microseconds per tick when nothing is corrected, at 100 ticks a second.
const TICK: f64 = 10_000.0;
/// Parts per million of one microsecond per tick.
const TICK_PPM: f64 = 100.0;

/// What the kernel knows of the wall clock, and how it corrects the rate of all clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Discipline {
    /// Something, such as an NTP daemon, keeps the wall clock right.
    pub synchronized: bool,
    /// By how much the clocks are made to run faster, in parts per million; negative: slower. It is also
    /// how far this machine's own oscillator is off.
    pub correction_ppm: f64,
}

/// Asks the kernel; changes nothing.
///
/// # Errors
/// When the kernel does not tell.
pub fn discipline() -> io::Result<Discipline> {
    // SAFETY: all fields of `timex` are integers, for which zero is a value; no mode means only to ask.
    let mut state: libc::timex = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the structure is writable and outlives the call.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let ticks = state.tick as f64 - TICK;
    Ok(Discipline {
        synchronized: result != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0,
        correction_ppm: state.freq as f64 / FREQUENCY_UNIT + ticks * TICK_PPM,
    })
}
