//! Grades of containment below `kernel`: which of the faults one does not bear as `kernel` does, and what is made of
//! them, in one table. What each grade promises is in `docs/failure-model.md`; what is not in the table is injected and
//! judged as with `kernel`.

use std::fmt;
use std::time::Duration;

use crate::faults::{Act, FAULTS, Fault, OnMachine};

/// How long the wardens of a machine may take to end what outlived its deadline, once they are no longer frozen: K of the
/// lease arithmetic, as for the kernel.
pub(crate) const ENDED_WITHIN: Duration = Duration::from_secs(1);

/// A grade that agents can be made to earn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Grade {
    /// The kernel ends everything: namespaces of processes, and its timer
    Kernel,
    /// An unprivileged user's, with a control group that was given to it
    Cgroup,
    /// An unprivileged user's, with nothing but the process table
    Scan,
}

impl Grade {
    /// As agents tell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Cgroup => "cgroup",
            Self::Scan => "scan",
        }
    }

    /// Whether it is below `kernel`.
    pub(crate) fn is_lower(self) -> bool {
        self != Self::Kernel
    }

    /// What is made of a fault, and why, where that is not what is made of it with `kernel`.
    pub(crate) fn exception(self, fault: &Fault) -> Option<&'static Exception> {
        EXCEPTIONS
            .iter()
            .find(|one| one.act == fault.act && one.grades.contains(&self))
    }

    /// Whether daemons of a machine may be there until that long after this fault was healed.
    pub(crate) fn lets_daemons_linger(self, fault: &Fault) -> bool {
        let exception = self.exception(fault);
        exception.is_some_and(|one| one.treatment == Treatment::DaemonsLinger)
    }

    /// What is made of these faults otherwise than with `kernel`, in words: what is left out, and what is not.
    pub(crate) fn told(self, treatment: Treatment) -> Vec<String> {
        let all = FAULTS.iter().filter_map(|fault| {
            let one = self.exception(fault)?;
            (one.treatment == treatment)
                .then(|| format!("{} {}: {}", fault.id, fault.text, one.why))
        });
        all.collect()
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is made of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// It is not injected: nothing is promised that could be judged.
    LeftOut,
    /// It is injected, and everything is judged, but that daemons of runs may be there beside the next run, and write,
    /// from the deadline until [`ENDED_WITHIN`] after the heal.
    DaemonsLinger,
    /// It is injected in another way, which takes control groups of version 2, and judged as ever.
    ByGroup,
}

/// A fault that some grades do not bear as `kernel` does.
#[derive(Debug)]
pub(crate) struct Exception {
    act: Act,
    grades: &'static [Grade],
    pub(crate) treatment: Treatment,
    why: &'static str,
}

use Grade::{Cgroup, Scan};
use Treatment::{ByGroup, DaemonsLinger, LeftOut};

const FROZEN: &str = "the kernel's timer ends the holder at the deadline, and by their parents' death init and command, \
     stopped or not. Nothing else of a run has such a parent: it is ended by its warden, as soon as that executes again";
const BOTH_KILLED: &str = "what a command has started outlives both processes of its warden, and nobody is left who could \
     find it; `teeth hidden-daemon` shows that";
const POWER: &str = "only with namespaces is everything gone with the timekeepers, as without power; the control group of \
     the machine is killed instead";

/// The faults that grades below `kernel` do not bear as `kernel` does.
static EXCEPTIONS: [Exception; 5] = [
    Exception {
        act: Act::Machine(OnMachine::StopAll),
        grades: &[Cgroup, Scan],
        treatment: DaemonsLinger,
        why: FROZEN,
    },
    Exception {
        act: Act::Machine(OnMachine::Freeze),
        grades: &[Cgroup, Scan],
        treatment: DaemonsLinger,
        why: FROZEN,
    },
    Exception {
        act: Act::Machine(OnMachine::KillWholeWardens),
        grades: &[Scan],
        treatment: LeftOut,
        why: BOTH_KILLED,
    },
    Exception {
        act: Act::Machine(OnMachine::KillAgentAndWardens),
        grades: &[Scan],
        treatment: LeftOut,
        why: BOTH_KILLED,
    },
    Exception {
        act: Act::Machine(OnMachine::Lose),
        grades: &[Cgroup, Scan],
        treatment: ByGroup,
        why: POWER,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exception_is_of_a_fault_and_kernel_has_none() {
        for one in &EXCEPTIONS {
            assert!(FAULTS.iter().any(|fault| fault.act == one.act), "{one:?}");
            assert!(!one.grades.contains(&Grade::Kernel), "{one:?}");
        }
        for fault in &FAULTS {
            assert!(Grade::Kernel.exception(fault).is_none(), "{fault:?}");
        }
        let counts = |grade: Grade| {
            let told = |treatment| grade.told(treatment).len();
            (told(LeftOut), told(DaemonsLinger), told(ByGroup))
        };
        assert_eq!(counts(Grade::Kernel), (0, 0, 0));
        assert_eq!(counts(Cgroup), (0, 2, 1));
        assert_eq!(counts(Scan), (2, 2, 1));
    }
}
