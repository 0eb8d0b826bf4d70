//! What `--help` says below the options of every command: examples that work, and how the command ends.
//!
//! A table beside the declarations, so that a test can try every example. **Never** the place where an
//! option is declared; that is [`super::args`].

use clap::{CommandFactory as _, Subcommand as _};

use super::args::{Ask, Root};
use crate::failure::Exit;

/// What a person reads below the options of one command.
pub(super) struct Help {
    /// The command.
    pub(super) name: &'static str,
    /// Command lines of a shell that can be pasted.
    pub(super) examples: &'static [&'static str],
    /// More that has to be known; may be empty.
    pub(super) note: &'static str,
    /// How it can end, besides 0, 1 and 2, with which every command can, and [`ASKS`].
    pub(super) exits: &'static [Exit],
}

/// How everything can end that asks the cluster, besides 0, 1 and 2. A director with tokens may refuse each.
const ASKS: [Exit; 3] = [Exit::NotAllowed, Exit::Unreachable, Exit::Interrupted];
/// How a command can end that reads of something that is named.
const READS_NAMED: &[Exit] = &[Exit::NotFound];
/// How a command can end that changes something that is named.
const CHANGES_NAMED: &[Exit] = &[Exit::NotFound, Exit::Conflict, Exit::OutcomeUnknown];
/// The same when it also waits.
const CHANGES_AND_WAITS: &[Exit] = &[
    Exit::NotFound,
    Exit::Conflict,
    Exit::WaitRanOut,
    Exit::OutcomeUnknown,
];

/// How a daemon can end that is told to.
const DAEMON: &[Exit] = &[Exit::Interrupted];
/// How a daemon is told to.
const LEAVES: &str =
    "Ctrl-C or SIGTERM lets it leave in order (exit code 0), a second one ends it at once.";

/// Every command, in the order of the list.
pub(super) const COMMANDS: &[Help] = &[
    Help {
        name: "up",
        examples: &[
            "quorate up feeds.toml --agents 3",
            "quorate up feeds.toml --data-dir /var/lib/feeds --listen 127.0.0.1:7500",
        ],
        note: "Ctrl-C leaves in order, and a second Ctrl-C at once. The same command goes on from there. Closing\n\
               the terminal lets it leave in order, too; `nohup quorate up FILE &` stays when you log out.",
        exits: DAEMON,
    },
    Help {
        name: "init",
        examples: &[
            "quorate init --name d1 --data-dir /var/lib/quorate --listen 10.0.0.1:7400 > admin.token",
            "quorate init --data-dir /var/lib/quorate -o json",
            "quorate init --data-dir /var/lib/quorate --ledger postgres://quorate@db1,db2/quorate",
        ],
        note: "It founds a cluster and starts nothing: it makes the cluster's certificate authority, the papers of its\n\
               first director, a commented quorate.toml, and the token of the first admin, which is on standard\n\
               output and nowhere else. A director whose folder has papers serves TLS and asks everybody who he is.\n\
               With --ledger the directors keep nothing themselves, and any one of them is enough; docs/ledgers.md\n\
               tells what each store needs.",
        exits: &[Exit::Conflict, Exit::Unreachable],
    },
    Help {
        name: "join",
        examples: &[
            "quorate join 10.0.0.1:7400 --join-token-file join.token --data-dir /var/lib/quorate",
            "quorate join d1:7400,d2:7400 --join-token-file - --name a7 --data-dir /var/lib/quorate",
            "quorate join d1:7400 --join-token-file t --data-dir /srv/q --ledger etcd://e1,e2,e3/q",
        ],
        note: "The join token says whether this machine becomes an agent or a director, and which authority it is to\n\
               believe. The key is made here and stays here. Interrupted, the same command goes on. It starts\n\
               nothing. A machine that was off until its certificate ended joins again in the same way.",
        exits: &[
            Exit::Conflict,
            Exit::NotAllowed,
            Exit::Unreachable,
            Exit::OutcomeUnknown,
        ],
    },
    Help {
        name: "director",
        examples: &[
            "quorate director --config /var/lib/quorate/quorate.toml",
            "quorate director --name d1 --data-dir /var/lib/quorate/d1 --source-root /etc/quorate",
        ],
        note: LEAVES,
        exits: DAEMON,
    },
    Help {
        name: "agent",
        examples: &[
            "quorate agent --name a1 --data-dir /var/lib/quorate/a1 --join 127.0.0.1:7400 --label zone=eu-1a",
            "quorate agent --config /var/lib/quorate/quorate.toml",
        ],
        note: "Ctrl-C or SIGTERM lets it leave in order (exit code 0), a second one ends it at once.\n\
               While no director answers, runs end with their lease, or go on, as their service says:\n\
               `quorate explain isolation`.",
        exits: DAEMON,
    },
    Help {
        name: "apply",
        examples: &[
            "quorate apply feeds.toml --wait 2m",
            "cat feeds.toml | quorate apply -",
        ],
        note: "What becomes of runs while no director answers is the service's `isolation`, stop or keep:\n\
               `quorate explain isolation`.",
        exits: &[
            Exit::Conflict,
            Exit::WaitRanOut,
            Exit::Unhealthy,
            Exit::OutcomeUnknown,
        ],
    },
    Help {
        name: "plan",
        examples: &[
            "quorate plan feeds.toml",
            "quorate plan feeds.toml --exit-code",
        ],
        note: "",
        exits: &[Exit::Changes],
    },
    Help {
        name: "rm",
        examples: &[
            "quorate rm feeds",
            "quorate rm service/feeds service/imports",
            "quorate rm agent/a3",
        ],
        note: "A partition goes when it is taken out of its list; `quorate stop SERVICE/KEY` only stops it.",
        exits: CHANGES_NAMED,
    },
    Help {
        name: "status",
        examples: &[
            "quorate status",
            "quorate status feeds",
            "quorate status feeds/ci",
        ],
        note: "",
        exits: READS_NAMED,
    },
    Help {
        name: "ls",
        examples: &[
            "quorate ls partitions --problems",
            "quorate ls agents -o json",
            "quorate ls partitions -l customer=acme --watch",
        ],
        note: "",
        exits: READS_NAMED,
    },
    Help {
        name: "why",
        examples: &["quorate why feeds/ci"],
        note: "",
        exits: READS_NAMED,
    },
    Help {
        name: "history",
        examples: &[
            "quorate history feeds/ci",
            "quorate history feeds/ci -o json",
        ],
        note: "",
        exits: READS_NAMED,
    },
    Help {
        name: "logs",
        examples: &["quorate logs feeds/ci -f", "quorate logs feeds --since 10m"],
        note: "",
        exits: READS_NAMED,
    },
    Help {
        name: "events",
        examples: &[
            "quorate events -f",
            "quorate events feeds/ci --agent a1",
            "quorate events --since 10m",
        ],
        note: "The newest are kept in memory; what is older than all of them is told to be gone, and\n\
               `quorate history SERVICE/KEY` has what happened to one partition for longer.",
        exits: READS_NAMED,
    },
    Help {
        name: "start",
        examples: &["quorate start feeds", "quorate start feeds/ci"],
        note: "",
        exits: CHANGES_NAMED,
    },
    Help {
        name: "stop",
        examples: &["quorate stop feeds/ci"],
        note: "",
        exits: CHANGES_NAMED,
    },
    Help {
        name: "restart",
        examples: &[
            "quorate restart feeds/ci",
            "quorate restart feeds --rolling --max 2",
        ],
        note: "",
        exits: CHANGES_AND_WAITS,
    },
    Help {
        name: "drain",
        examples: &["quorate drain a2 --wait 10m"],
        note: "`quorate uncordon AGENT` gives it work again.",
        exits: CHANGES_AND_WAITS,
    },
    Help {
        name: "cordon",
        examples: &["quorate cordon a2"],
        note: "",
        exits: CHANGES_NAMED,
    },
    Help {
        name: "uncordon",
        examples: &["quorate uncordon a2"],
        note: "",
        exits: CHANGES_NAMED,
    },
    Help {
        name: "evict",
        examples: &["quorate evict a2 --accept-duplicate-risk --reason fire"],
        note: "For a machine that is gone for good, when its lease is too long to wait for. Nothing proves that\n\
               its processes are dead: if they live, they run beside the new ones until the agent hears of it\n\
               or its lease ends, and only fencing tokens protect your data. Takes what the agent is\n\
               silent about; what is heard stays: drain it. Work that waits for a fence hook is taken, too,\n\
               without the hook: what it was to make sure of is then yours to make sure of.",
        exits: CHANGES_NAMED,
    },
    Help {
        name: "cluster",
        examples: &[
            "quorate cluster status",
            "quorate cluster transfer-leader --to d2",
            "quorate cluster backup --to quorate.backup",
            "quorate cluster backup --check quorate.backup",
            "quorate cluster drill --report drill.md",
        ],
        note: "A new director comes in by itself: after `quorate join` and its start it asks the others, follows,\n\
               and votes once it has caught up; `cluster add` is for one that follows only. An odd number of\n\
               voters is right: a fourth bears no more losses than three.\n\
               A backup holds the hashes of all tokens: keep it like one. `cluster restore FILE --data-dir NEW --name d1`\n\
               is for when a majority is lost for good; read docs/recovery.md before. `cluster drill` ends with 1 when\n\
               anything moved, and with 8 before it begins when the quorum could not bear it. `cluster adopt-history`\n\
               is for a store that was restored or has failed over without all that directors had seen: it asks no\n\
               director, and all of them have to be stopped.",
        exits: &[
            Exit::NotFound,
            Exit::Conflict,
            Exit::WaitRanOut,
            Exit::Unhealthy,
            Exit::OutcomeUnknown,
        ],
    },
    Help {
        name: "ledger",
        examples: &[
            "quorate ledger copy --from /var/lib/quorate --to etcd://e1,e2,e3/quorate",
            "quorate ledger copy --from etcd://e1/quorate --to 'postgres://quorate@db/quorate?schema=jobs'",
            "quorate ledger copy --from consul://c1/quorate --to /var/lib/quorate --name d1",
        ],
        note: "Every director has to be stopped, and what runs ends with its lease. The cluster begins a new era where\n\
               it is copied to: tokens go on rising, and nothing is given away before every lease of before is over.\n\
               The ledger that is copied is closed first, and takes nothing any more. Interrupted, the same command\n\
               goes on. docs/ledgers.md tells the way step by step.",
        exits: &[Exit::NotFound, Exit::Conflict, Exit::Unreachable],
    },
    Help {
        name: "wait",
        examples: &[
            "quorate wait --settled --timeout 2m",
            "quorate wait --settled --service feeds",
        ],
        note: "",
        exits: &[Exit::NotFound, Exit::WaitRanOut, Exit::Unhealthy],
    },
    Help {
        name: "token",
        examples: &[
            "quorate token create --name ci --role definer --scope feeds- --ttl 90d",
            "quorate token ls",
            "quorate token revoke 4be1c07a52",
        ],
        note: "A token is shown once. Keep it in a file of mode 0600 and name that in QUORATE_API_TOKEN_FILE.",
        exits: CHANGES_NAMED,
    },
    Help {
        name: "join-token",
        examples: &[
            "quorate join-token create --role agent --uses 10 --ttl 1h",
            "quorate join-token ls",
            "quorate join-token revoke 4be1c07a52",
        ],
        note: "Whoever has it may let machines in until it is used up, so it counts for a short time.",
        exits: CHANGES_NAMED,
    },
    Help {
        name: "audit",
        examples: &["quorate audit", "quorate audit -o json"],
        note: "It shows the newest thousand changes that the director that answers has kept in its history.",
        exits: &[],
    },
    Help {
        name: "api",
        examples: &["quorate api GET /v1/agents"],
        note: "The document of the API is at /openapi.json.",
        exits: READS_NAMED,
    },
    Help {
        name: "doctor",
        examples: &[
            "quorate doctor",
            "quorate doctor --data-dir /var/lib/quorate/a1",
            "quorate doctor --address 127.0.0.1:7400 -o json",
            "quorate doctor --ledger etcd://e1,e2,e3/quorate",
        ],
        note: "It needs no cluster; the directors are asked only when --address or QUORATE_ADDRESS names them.\nNothing is changed: what it starts and writes, it removes. Run it as the user of the daemon.",
        exits: &[Exit::Unhealthy],
    },
    Help {
        name: "validate",
        examples: &["quorate validate feeds.toml"],
        note: "",
        exits: &[],
    },
    Help {
        name: "completion",
        examples: &[
            "quorate completion bash > ~/.local/share/bash-completion/completions/quorate",
            "quorate completion fish > ~/.config/fish/completions/quorate.fish",
        ],
        note: "zsh: put `source <(quorate completion zsh)` into ~/.zshrc, after compinit. The script asks the \
               program on the PATH for what fits, and offers the names of the cluster that the line or \
               QUORATE_ADDRESS names.",
        exits: &[],
    },
    Help {
        name: "man",
        examples: &["quorate man ~/.local/share/man/man1"],
        note: "",
        exits: &[],
    },
    Help {
        name: "version",
        examples: &["quorate version", "quorate version -o json"],
        note: "",
        exits: &[],
    },
    Help {
        name: "explain",
        examples: &[
            "quorate explain no_leader",
            "quorate explain 6",
            "quorate explain restart.backoff",
            "quorate explain service-file",
            "quorate explain schema > quorate.schema.json",
        ],
        note: "`service-file` shows the reference of all keys, `schema` a JSON Schema for editors.",
        exits: &[Exit::NotFound],
    },
];

/// The commands that log what they do. The others say it, and end.
const LOGGING: &[&str] = &["up", "director", "agent"];

/// An option of all commands that means nothing to some.
#[derive(Clone, Copy)]
pub(super) struct Meaningless {
    /// The option.
    pub(super) option: &'static str,
    /// The command.
    pub(super) command: &'static str,
    /// What to do instead.
    pub(super) instead: &'static str,
}

const fn meaningless(
    option: &'static str,
    command: &'static str,
    instead: &'static str,
) -> Meaningless {
    Meaningless {
        option,
        command,
        instead,
    }
}

/// What asks no cluster takes no address of one.
const NO_CLUSTER: &str = "leave it out: no cluster is asked";
/// Where it listens is said otherwise.
const LISTENS: &str = "--listen ADDR says where its API listens";
/// Who is asked for a token shows none.
const NO_TOKEN: &str = "leave it out: it asks nobody who wants one";
/// A machine that is not in yet has another one.
const JOIN_TOKEN: &str = "--join-token-file FILE names the join token";
/// What gives no results takes no format of them.
const NO_RESULTS: &str = "leave it out; --log-format json is for what is logged";
/// What is made for another program has its own format.
const OWN_FORMAT: &str = "leave it out: there is only one format";

/// They are not shown there, and refused: what is ignored in silence misleads.
pub(super) const MEANINGLESS: &[Meaningless] = &[
    meaningless("address", "up", LISTENS),
    meaningless("address", "init", LISTENS),
    meaningless(
        "address",
        "join",
        "write the directors after `join`: quorate join ADDR,ADDR",
    ),
    meaningless("address", "director", LISTENS),
    meaningless(
        "address",
        "agent",
        "--join ADDR says where the directors are",
    ),
    meaningless("address", "validate", NO_CLUSTER),
    meaningless("address", "completion", NO_CLUSTER),
    meaningless("address", "man", NO_CLUSTER),
    meaningless("address", "version", NO_CLUSTER),
    meaningless("address", "explain", NO_CLUSTER),
    meaningless("token", "up", NO_TOKEN),
    meaningless("token", "init", NO_TOKEN),
    meaningless("token", "join", JOIN_TOKEN),
    meaningless("token", "director", NO_TOKEN),
    meaningless("token", "validate", NO_CLUSTER),
    meaningless("token", "completion", NO_CLUSTER),
    meaningless("token", "man", NO_CLUSTER),
    meaningless("token", "version", NO_CLUSTER),
    meaningless("token", "explain", NO_CLUSTER),
    meaningless("token_file", "up", NO_TOKEN),
    meaningless("token_file", "init", NO_TOKEN),
    meaningless("token_file", "join", JOIN_TOKEN),
    meaningless("token_file", "director", NO_TOKEN),
    meaningless("token_file", "validate", NO_CLUSTER),
    meaningless("token_file", "completion", NO_CLUSTER),
    meaningless("token_file", "man", NO_CLUSTER),
    meaningless("token_file", "version", NO_CLUSTER),
    meaningless("token_file", "explain", NO_CLUSTER),
    meaningless("output", "up", NO_RESULTS),
    meaningless("output", "director", NO_RESULTS),
    meaningless("output", "agent", NO_RESULTS),
    meaningless("output", "completion", OWN_FORMAT),
    meaningless("output", "man", OWN_FORMAT),
];

/// The whole command line, with what stands below the options of each command.
pub(super) fn command() -> clap::Command {
    let mut root = Root::command();
    for help in COMMANDS {
        root = root.mut_subcommand(help.name, |command| command.after_help(text(help)));
    }
    for Meaningless {
        option, command, ..
    } in all_meaningless()
    {
        let found = root.get_arguments().find(|arg| arg.get_id() == option);
        if let Some(hidden) = found.cloned().map(|arg| arg.hide(true)) {
            root = root.mut_subcommand(command, |command| command.arg(hidden));
        }
    }
    root
}

/// [`MEANINGLESS`], and the options of what is logged for every command that logs nothing.
pub(super) fn all_meaningless() -> impl Iterator<Item = Meaningless> {
    let silent = COMMANDS.iter().filter(|help| !LOGGING.contains(&help.name));
    let logs = silent.flat_map(|help| {
        ["log_level", "log_format"]
            .map(|option| meaningless(option, help.name, "leave it out: it logs nothing"))
    });
    MEANINGLESS.iter().copied().chain(logs)
}

fn text(help: &Help) -> String {
    let several = if help.examples.len() > 1 { "s" } else { "" };
    let mut text = format!("Example{several}:\n");
    for example in help.examples {
        text.push_str(&format!("  {example}\n"));
    }
    if !help.note.is_empty() {
        text.push_str(&format!("\n{}\n", help.note));
    }
    text.push_str("\nExit codes (`quorate explain CODE` says more):\n");
    for exit in exits(help) {
        text.push_str(&format!("  {:>3}  {}\n", exit.number(), exit.short()));
    }
    text
}

/// Every way in which a command can end, in order.
fn exits(help: &Help) -> impl Iterator<Item = Exit> {
    let asks: &[Exit] = if Ask::has_subcommand(help.name) {
        &ASKS
    } else {
        &[]
    };
    let always = [Exit::Done, Exit::Failed, Exit::Usage];
    Exit::ALL.into_iter().filter(move |exit| {
        [&always, asks, help.exits]
            .iter()
            .any(|of| of.contains(exit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a simple command line of a shell: what comes before `|` and after `>` is not ours.
    fn words(line: &str) -> Vec<&str> {
        let ours = line.rsplit("| ").next().unwrap_or_default();
        ours.split(" > ")
            .next()
            .unwrap_or_default()
            .split(' ')
            .collect()
    }

    #[test]
    fn every_command_has_examples_that_parse_and_says_how_it_ends() {
        let mut root = command();
        root.build();
        let mut seen = 0;
        for command in root
            .get_subcommands()
            .filter(|command| command.get_name() != "help")
        {
            let name = command.get_name();
            let help = COMMANDS.iter().find(|help| help.name == name);
            let help = help.unwrap_or_else(|| panic!("{name} has no examples"));
            assert!(!help.examples.is_empty(), "{name}");
            let shown = command.clone().render_help().to_string();
            for example in help.examples {
                assert!(
                    shown.contains(example),
                    "{name} does not show {example}:\n{shown}"
                );
                let words = words(example);
                assert_eq!(
                    words.get(..2),
                    Some(["quorate", name].as_slice()),
                    "{example}"
                );
                if let Err(error) = super::super::matches(&words) {
                    panic!("{example}: {error}");
                }
            }
            assert!(shown.contains("Exit codes"), "{name}");
            seen += 1;
        }
        assert_eq!(seen, COMMANDS.len());
    }

    #[test]
    fn everything_that_asks_the_cluster_may_be_refused_find_nobody_and_be_interrupted() {
        let mut seen = 0;
        for help in COMMANDS {
            let shown = text(help);
            let asks = Ask::has_subcommand(help.name);
            for exit in ASKS {
                let line = format!("\n  {:>3}  {}\n", exit.number(), exit.short());
                assert!(!asks || shown.contains(&line), "{shown}");
            }
            let lines: Vec<&str> = shown.lines().collect();
            for exit in Exit::ALL {
                let head = format!("  {:>3}  ", exit.number());
                let times = lines.iter().filter(|line| line.starts_with(&head)).count();
                assert!(times < 2, "{head}: {shown}");
            }
            seen += usize::from(asks);
        }
        assert!(seen > 20, "{seen}");
        let ls = COMMANDS.iter().find(|help| help.name == "ls").unwrap();
        assert!(exits(ls).any(|exit| exit == Exit::NotFound));
    }

    #[test]
    fn options_that_mean_nothing_to_a_command_are_neither_shown_nor_taken() {
        let mut root = command();
        root.build();
        for Meaningless {
            option, command, ..
        } in all_meaningless()
        {
            let long = format!("--{}", option.replace('_', "-"));
            let shown = root.find_subcommand_mut(command).unwrap().render_help();
            assert!(!shown.to_string().contains(&long), "{command}:\n{shown}");
            let example = COMMANDS.iter().find(|help| help.name == command);
            let words = words(example.unwrap().examples[0]);
            for at in [1, words.len()] {
                let mut words = words.clone();
                words.splice(at..at, [long.as_str(), "json"]);
                let matches = super::super::matches(&words).unwrap();
                let failure = super::super::usage::meaningless(&matches).unwrap();
                assert!(failure.first.sentence.contains(&long), "{words:?}");
                assert!(!failure.first.next.is_empty(), "{words:?}");
            }
            let matches = super::super::matches(&words).unwrap();
            assert!(super::super::usage::meaningless(&matches).is_none());
        }
    }

    /// The `quorate …` in the prose of a document; blocks are run by other tests.
    fn inline(document: &str) -> Vec<String> {
        let outside = document.split("```").step_by(2);
        let marked = outside.flat_map(|text| text.split('`').skip(1).step_by(2));
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        marked
            .map(line)
            .filter(|text| text.starts_with("quorate ") && !text.contains("COMMAND"))
            .collect()
    }

    /// Whether a line can be typed, or is only the name of a command.
    fn is_command(line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        let named = |help: &Help| words.as_slice() == ["quorate", help.name];
        COMMANDS.iter().any(named)
            || super::super::matches(&words).map_or_else(|error| !error.use_stderr(), |_| true)
    }

    #[test]
    fn every_command_that_a_document_names_is_one() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let documents = [
            "README.md",
            "docs/access.md",
            "docs/operations.md",
            "docs/service-file.md",
            "docs/failure-model.md",
            "examples/feeds/README.md",
        ];
        let mut seen = 0;
        for name in documents {
            let text = std::fs::read_to_string(format!("{root}/{name}")).unwrap();
            for line in inline(&text) {
                assert!(is_command(&line), "{name}: {line}");
                seen += 1;
            }
        }
        assert!(seen > 30, "{seen}");
        assert!(!is_command("quorate aply x.toml") && !is_command("quorate ls -l"));
    }

    #[test]
    fn every_command_that_an_explanation_names_is_one() {
        let exits = Exit::ALL.map(Exit::meaning).into_iter();
        let codes = crate::failure::Code::ALL.iter().map(|code| code.meaning());
        for line in exits.chain(codes).flat_map(inline) {
            assert!(is_command(&line), "{line}");
        }
    }
}
