//! What goes wrong, as a person sees it: a code, one sentence, one next step, and an exit code.
//!
//! Every code is in [`Code`], so that `quorate explain CODE` knows each one that can be shown.
//! **Never** print from here; [`crate::output`] does.

use std::fmt;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Failed for a reason that no other code names.
    Failed = 1,
    /// The command line or a file is wrong; nothing was changed.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// It contradicts what is in force.
    Conflict = 4,
    /// The caller may not do this.
    NotAllowed = 5,
    /// No director leads or none was reached; trying again is safe.
    Unreachable = 6,
    /// A wait ran out; the operation goes on.
    WaitRanOut = 7,
    /// The state that was checked is unhealthy.
    Unhealthy = 8,
    /// Whether it was done is not known.
    OutcomeUnknown = 9,
    /// `plan --exit-code` found changes.
    Changes = 10,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 12] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Conflict,
        Self::NotAllowed,
        Self::Unreachable,
        Self::WaitRanOut,
        Self::Unhealthy,
        Self::OutcomeUnknown,
        Self::Changes,
        Self::Interrupted,
    ];

    /// The number that the shell sees.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    /// What it means in a few words, for the help of commands.
    pub(crate) const fn short(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "the command line or a file is wrong; nothing was changed",
            Self::NotFound => "what was named does not exist",
            Self::Conflict => "it contradicts what is in force; nothing was changed",
            Self::NotAllowed => "not allowed",
            Self::Unreachable => "no director leads or was reached; trying again is safe",
            Self::WaitRanOut => "the wait ran out; the operation goes on",
            Self::Unhealthy => "it worked, and what it checked is not healthy",
            Self::OutcomeUnknown => "whether it was done is not known; it is safe to repeat",
            Self::Changes => "`--exit-code` found changes",
            Self::Interrupted => {
                "ended by Ctrl-C, a daemon by the second; what was asked of a cluster goes on there"
            }
        }
    }

    /// What it means, and what to do.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "Done.",
            Self::Failed => "Failed; the message says why.",
            Self::Usage => {
                "The command line or a file is wrong. Nothing was changed; correct it and run the command again."
            }
            Self::NotFound => {
                "What was named does not exist. `quorate ls services`, `quorate ls partitions` and `quorate ls agents` list what does."
            }
            Self::Conflict => {
                "It contradicts what is in force, so nothing was changed. The message says what is in the way."
            }
            Self::NotAllowed => "You may not do this.",
            Self::Unreachable => {
                "No director leads, or none was reached. Nothing is known to be changed, and trying again is safe."
            }
            Self::WaitRanOut => {
                "The wait ran out. The operation itself goes on; `quorate wait --settled` waits for it again."
            }
            Self::Unhealthy => {
                "The command worked, and what it checked is not healthy. `quorate ls partitions --problems` shows what."
            }
            Self::OutcomeUnknown => {
                "Whether it was done is not known. Look (`quorate status`), or run the same command again: it is safe to repeat."
            }
            Self::Changes => "`plan --exit-code` found changes.",
            Self::Interrupted => {
                "Ended by Ctrl-C; a daemon by the second one, since it leaves in order at the first. What had been asked of the cluster goes on there."
            }
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// Declares the codes with everything that `explain` says of them.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $exit:ident, $meaning:literal;)*) => {
        /// Names one kind of error for ever.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// All of them, in order.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it is shown and typed.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How the program ends after it.
            pub(crate) const fn exit(self) -> Exit {
                match self { $(Self::$variant => Exit::$exit,)* }
            }

            /// What it means and what to do, for `quorate explain`.
            pub(crate) const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    /// The command line is wrong.
    Usage = "usage", Usage,
        "The command line is wrong. `quorate COMMAND --help` shows what the command takes, with examples.";
    /// A file cannot be read at all.
    FileUnreadable = "file_unreadable", Usage,
        "The file does not exist or cannot be read. Check its path and its permissions; `-` reads standard input.";
    /// A file is larger than is read.
    FileTooLarge = "file_too_large", Usage,
        "The file is larger than the 16 MiB that are read and sent to the directors at once. Long lists belong into a file of their own (`partitions.file`, up to 64 MiB), which the directors read themselves.";
    /// A file is not TOML or JSON.
    FileSyntax = "file_syntax", Usage,
        "The file is not valid TOML or JSON. The message shows the line; what came before it may be at fault, such as a bracket or quote that was not closed.";
    /// A file has a key that nobody knows.
    FileKey = "file_key", Usage,
        "The file has a key that this version does not know. Unknown keys are errors, because a misspelt key would otherwise be ignored in silence.";
    /// A file has a value of the wrong kind.
    FileValue = "file_value", Usage,
        "A value in the file is of the wrong kind, such as the text \"10\" where the number 10 is meant.";
    /// A file is well formed and says something that cannot be.
    FileInvalid = "file_invalid", Usage,
        "The file is well formed, and what it says cannot be carried out: a bad name, a rule that contradicts another, a source that is missing. The message shows the line.";
    /// A file describes nothing.
    FileEmpty = "file_empty", Usage,
        "The file describes no service. The least that a file needs is a table [service.NAME] with a command.";
    /// Two files describe the same service.
    FileDuplicate = "file_duplicate", Usage,
        "The same service is described twice. Several files are put together before anything is applied, so each service may be in one of them only.";
    /// `${NAME}` of an undefined variable.
    EnvUndefined = "env_undefined", Usage,
        "The file uses ${NAME}, and no such environment variable is defined where the command runs. Define it, or write $${NAME} for those characters themselves, such as in a command of a shell.";
    /// What was named does not exist.
    NotFound = "not_found", NotFound,
        "What was named does not exist. `quorate ls services`, `quorate ls partitions` and `quorate ls agents` list what does.";
    /// It contradicts what is in force.
    Conflict = "conflict", Conflict,
        "It contradicts what is in force, so nothing was changed.";
    /// It is not as it was when it was read.
    PreconditionFailed = "precondition_failed", Conflict,
        "The request says what must be true of the object for it to be done (If-Match or If-None-Match), and that is not so: somebody else has changed, made or removed it in the meantime. Nothing was changed. Read the object again, look at what is different, and write with the ETag of the new answer.";
    /// The caller may not do this.
    NotAllowed = "not_allowed", NotAllowed,
        "You may not do this.";
    /// No director was reached.
    Unreachable = "unreachable", Unreachable,
        "No director was reached. Start one (`quorate up FILE`), or say where it is with --address or QUORATE_ADDRESS. Trying again is safe.";
    /// There is no TLS with a director.
    Tls = "tls", Unreachable,
        "TLS with the director came to nothing, so nothing was asked. Either only one side speaks it (write http:// or https:// before the address), or the certificate is not trusted (name the cluster's ca.pem with --ca-file or QUORATE_CA_FILE), has expired, or is not that of a director.";
    /// A director was reached, and none leads.
    NoLeader = "no_leader", Unreachable,
        "A director answered, and none of them leads at the moment, because they are electing or a majority is missing. What runs goes on running. Trying again is safe.";
    /// Something else answers at the address.
    NotQuorate = "not_quorate", Unreachable,
        "Something answered at that address, and it is not a director of quorate. Check the port; directors listen on 7400 unless told otherwise.";
    /// The cluster asks to come again later.
    Overloaded = "overloaded", Unreachable,
        "The directors have too much to do at the moment. Nothing was changed; trying again is safe.";
    /// A wait ran out.
    WaitRanOut = "wait_ran_out", WaitRanOut,
        "The wait ran out. The operation itself goes on; `quorate wait --settled` waits for it again.";
    /// What was checked is not healthy.
    Unhealthy = "unhealthy", Unhealthy,
        "The command worked, and what it checked is not healthy.";
    /// Whether it was done is not known.
    OutcomeUnknown = "outcome_unknown", OutcomeUnknown,
        "The connection or the leader was lost after the request had been sent, so whether it was done is not known. Look with `quorate status`, or run the same command again: it is safe to repeat.";
    /// The request was refused as malformed.
    Invalid = "invalid", Usage,
        "The directors refused the request as malformed; nothing was changed.";
    /// Ctrl-C.
    Interrupted = "interrupted", Interrupted,
        "Ended by Ctrl-C; a daemon by the second one, since it leaves in order at the first. What had been asked of the cluster goes on there.";
    /// Somebody uses the port.
    PortInUse = "port_in_use", Failed,
        "Another program listens at this address. Often it is another `quorate up` or `quorate director`; stop it, or choose another address with --listen.";
    /// Somebody uses the data folder.
    DataDirLocked = "data_dir_locked", Failed,
        "Another quorate process uses this data folder. Two processes on one folder would destroy it, so the second one does not start. Stop the first one, or choose another folder with --data-dir. Where the folder is a copy of one that is in use, give the copy's agent an empty folder and a name of its own.";
    /// The data folder cannot be used.
    DataDir = "data_dir", Failed,
        "The data folder cannot be made, read or written. Check its path and permissions, or choose another with --data-dir.";
    /// The director is of a version that does not understand the ledger.
    LedgerFormat = "ledger_format", Failed,
        "The ledger of the cluster has a format that this director does not read, so it stopped before it misread anything; what it has on its disk is as it was. Install the version that the other directors run (`quorate cluster status` shows it) and start it again. The ledger goes over to a new format once every director reads it, and no version from before takes part after that. A director with hold_format reads no later format than that one: leave it out.";
    /// The store of the ledger does not have what a director has folded.
    OtherHistory = "other_history", Failed,
        "The store of the ledger does not have what this director has seen in it: it was restored from a copy, failed over to a server that had not followed, or is another one. What was decided in what is missing may still be in force on the agents, so the director stopped before it could give anything away twice. Stop every director. If the store can be brought back to what it had, do that and start them again. Otherwise `quorate cluster adopt-history --ledger URL` goes on with what the store has, in a new era, after every lease that may have been granted is over.";
    /// The configuration file of a daemon is wrong.
    Config = "config", Usage,
        "The daemon's configuration file cannot be read or says something that cannot be. Every key but the hooks of director.fence is also a flag and an environment variable.";
    /// A file is no backup that can be restored.
    BackupInvalid = "backup_invalid", Usage,
        "The file is not a whole backup that this version can restore: it is something else, is cut off, has a bit that was flipped, or was written by a newer version. Nothing of it was used. `quorate cluster backup --check FILE` tells which backups are whole; check each one when it is made.";
    /// The results could not be written.
    Output = "output", Failed,
        "The results could not be written to standard output, for example because the disk is full.";
    /// Whoever reads the results has had enough.
    ReaderLeft = "reader_left", Done,
        "The program that reads the results, such as `head`, ended before they were all written. Nothing is shown for it.";
    /// Anything else.
    Failed = "failed", Failed,
        "Something failed that has no code of its own; the message says what.";
}

impl Code {
    /// The code with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

/// A place in a file, with the text to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file, as the person named it.
    pub(crate) file: String,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
    /// The text of the line.
    pub(crate) text: String,
    /// How many characters to underline, at least 1.
    pub(crate) width: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Its kind.
    pub(crate) code: Code,
    /// One sentence.
    pub(crate) sentence: String,
    /// Where, if it is in a file.
    pub(crate) place: Option<Box<Place>>,
    /// What to do next; empty when the sentence says it.
    pub(crate) next: String,
}

/// Why a command did not do what it was asked to: at least one problem.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The first decides the exit code.
    pub(crate) first: Problem,
    /// Further ones of the same input.
    pub(crate) more: Vec<Problem>,
}

impl Failure {
    /// Whether it is only that the results cannot be written.
    pub(crate) fn is_of_output(&self) -> bool {
        matches!(self.first.code, Code::ReaderLeft | Code::Output)
    }

    /// One problem without a place.
    pub(crate) fn new(code: Code, sentence: impl fmt::Display, next: impl fmt::Display) -> Self {
        Self {
            first: Problem {
                code,
                sentence: sentence.to_string(),
                place: None,
                next: next.to_string(),
            },
            more: Vec::new(),
        }
    }

    /// All of several problems; `None` when there is none.
    pub(crate) fn of(problems: Vec<Problem>) -> Option<Self> {
        let mut problems = problems.into_iter();
        let first = problems.next()?;
        Some(Self {
            first,
            more: problems.collect(),
        })
    }

    /// How the program ends.
    pub(crate) const fn exit(&self) -> Exit {
        self.first.code.exit()
    }

    /// The problems in order.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

/// An error and its causes as one line: `a: b: c`.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        // Some libraries repeat the cause in their own text.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}

/// What an error comes from in the end, without how it got here.
pub(crate) fn root(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_name_and_no_two_share_one() {
        for code in Code::ALL {
            assert_eq!(Code::named(code.name()), Some(*code));
            assert!(code.meaning().ends_with('.'), "{}", code.name());
        }
    }
}
