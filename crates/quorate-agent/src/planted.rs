//! Bugs that can be planted in the warden and in the agent's shell, to show that the tests find them
//! (docs/proof.md).
//!
//! Without the feature `planted`, which no manifest may turn on, [`has`] is a constant `false`: nothing of
//! them is in a production build. Must not be asked where nothing may be allocated.

quorate_core::planted_bugs! {
    /// A run is ended by its process group and its parents, not by a namespace, a control group or a scan
    /// (R3).
    GroupKill = "group-kill",
    /// The code of the warden keeps the deadline, not the kernel's timer (R3).
    UserTimer = "user-timer",
    /// The kernel's timer and the alarm stand still while the machine is suspended: MONOTONIC for BOOTTIME
    /// (R1).
    MonotonicTimer = "monotonic-timer",
    /// The process that holds the runs outlives the one that holds the timer (R3).
    OrphanedHolder = "orphaned-holder",
    /// A run is started though no deadline was ever told (R3).
    UnarmedStart = "unarmed-start",
    /// A run is started before it is known that the timer is armed (R3).
    HastyStart = "hasty-start",
    /// A deadline is taken as it comes, also when it is earlier than the one before (R3).
    BackwardDeadline = "backward-deadline",
    /// A deadline is taken however far ahead it is, which is as good as none (R1).
    EndlessDeadline = "endless-deadline",
    /// The end of a run is told when its command has ended, though daemons of it may execute (S5).
    EarlyEnd = "early-end",
    /// A second warden is let into a folder in which one lives.
    UnlockedWarden = "unlocked-warden",
    /// A second agent process is let into the data folder of another (S7).
    UnheldFolder = "unheld-folder",
    /// The folder is held by the name of the identity alone, which another network namespace does not see (S7).
    UnlockedFolder = "unlocked-folder",
    /// The folder is held by its lock alone, which a copy of it does not share (S7).
    UnclaimedIdentity = "unclaimed-identity",
}

quorate_core::planted_by_name!();
