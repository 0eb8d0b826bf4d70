//! The program that the cluster runs. It asks the referee before it does anything, then writes down every
//! few milliseconds that it executes, and writes to the register. It shares no code with quorate and knows
//! only the environment that every run gets.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::clock::boot_nanos;
use crate::register::{self, Mode, Write};
use crate::wire::{Hello, Order};
use crate::{desk, records};

/// Milliseconds between two beats.
const BEAT: u64 = 10;
/// Beats between two writes to the register, and those of a worker whose beats are slower.
const WRITE_EVERY: u64 = 5;
const WRITE_EVERY_SLOW: u64 = 2;
/// How long the referee and the register may take to answer; they are threads that only do that.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How it ends when the register has refused its token: somebody newer is there.
const FENCED: u8 = 75;

/// How a worker behaves.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Where the sockets of the referee and the register are
    #[arg(long, env = "CHAOS_FOLDER")]
    folder: PathBuf,
    /// Does not hear SIGTERM
    #[arg(long)]
    deaf: bool,
    /// Goes on for so many milliseconds after SIGTERM
    #[arg(long, default_value_t = 0)]
    slow_stop: u64,
    /// Milliseconds between two moments that it writes down
    #[arg(long, default_value_t = BEAT)]
    beat: u64,
    /// Starts so many daemons, each in a session of its own, whose parent has ended
    #[arg(long, default_value_t = 0)]
    daemons: u32,
    /// Is the how-manieth daemon
    #[arg(long, default_value_t = 0)]
    daemon: u32,
    /// Is the parent of that daemon, which begins a session, starts it and ends
    #[arg(long)]
    parent: bool,
    /// Daemons hide from whoever looks for them in the process table
    #[arg(long)]
    hiding: bool,
}

/// Runs it to its end.
pub(crate) fn run(args: &WorkerArgs) -> Result<ExitCode> {
    if args.parent {
        // It may be the leader of its group already; then it has a session.
        let _session = rustix::process::setsid();
        daemon(args, args.daemon, false)?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(live(args))
}

/// Starts a daemon, or the parent of one.
fn daemon(args: &WorkerArgs, number: u32, parent: bool) -> Result<std::process::Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("worker")
        .args(["--daemon", &number.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if parent {
        command.arg("--parent");
    }
    if args.hiding {
        // What a scan goes by is the environment.
        let told = hello(0)?;
        command.arg("--hiding").env_clear();
        command.env("CHAOS_FOLDER", &args.folder);
        command.env("CHAOS_HELLO", told.line());
    }
    Ok(command.spawn()?)
}

/// Who this is.
fn hello(daemon: u32) -> Result<Hello> {
    if let Ok(line) = std::env::var("CHAOS_HELLO") {
        let told = Hello::parse(&line).ok_or_else(|| anyhow!("no greeting: {line}"))?;
        let clock = boot_nanos();
        return Ok(Hello {
            daemon,
            clock,
            ..told
        });
    }
    let var = |name: &str| std::env::var(name).with_context(|| name.to_owned());
    let filed = std::fs::read_to_string(var("QUORATE_TOKEN_FILE")?).unwrap_or_default();
    let filed = filed.lines().find_map(|line| line.strip_prefix("token="));
    Ok(Hello {
        partition: format!("{}/{}", var("QUORATE_SERVICE")?, var("QUORATE_KEY")?),
        token: var("QUORATE_TOKEN")?.parse()?,
        attempt: var("QUORATE_ATTEMPT")?.parse()?,
        agent: var("QUORATE_AGENT")?,
        daemon,
        clock: boot_nanos(),
        filed: filed.and_then(|text| text.parse().ok()).unwrap_or_default(),
    })
}

/// A worker that may execute.
struct Live {
    hello: Hello,
    /// From its own clock to the referee's.
    offset: i64,
    record: File,
    beats: u64,
    /// Beats between two writes.
    write_every: u64,
    register: Lines<BufReader<OwnedReadHalf>>,
    to_register: tokio::net::unix::OwnedWriteHalf,
}

async fn live(args: &WorkerArgs) -> Result<ExitCode> {
    if args.beat > BEAT {
        // One of hundreds takes the processor from nobody whose time is measured.
        rustix::process::nice(10)?;
    }
    // Before anybody can know of it.
    let mut terminate = signal(SignalKind::terminate())?;
    let hello = hello(args.daemon)?;
    let (read, mut write) = UnixStream::connect(args.folder.join(desk::SOCKET))
        .await?
        .into_split();
    write
        .write_all(format!("{}\n", hello.line()).as_bytes())
        .await?;
    let mut orders = BufReader::new(read).lines();
    let order = timeout(ANSWER_WITHIN, orders.next_line()).await??;
    let (id, offset) = match order.as_deref().and_then(Order::parse) {
        Some(Order::Go { id, offset }) => (id, offset),
        Some(Order::Exit(code)) => return Ok(exit(code)),
        None => bail!("the referee is gone"),
    };
    let stream = UnixStream::connect(args.folder.join(register::SOCKET)).await?;
    let (read, to_register) = stream.into_split();
    let mut live = Live {
        hello,
        offset,
        record: records::create(&args.folder, id)?,
        beats: 0,
        write_every: if args.beat > BEAT {
            WRITE_EVERY_SLOW
        } else {
            WRITE_EVERY
        },
        register: BufReader::new(read).lines(),
        to_register,
    };
    live.note(records::START)?;
    for number in 1..=args.daemons {
        // Its parent ends at once, so that whoever reaps for this tree gets the daemon.
        daemon(args, number, true)?.wait()?;
    }
    live.until_told(args, &mut terminate, &mut orders).await
}

impl Live {
    async fn until_told(
        &mut self,
        args: &WorkerArgs,
        terminate: &mut Signal,
        orders: &mut Lines<BufReader<OwnedReadHalf>>,
    ) -> Result<ExitCode> {
        let beat = Duration::from_millis(args.beat);
        loop {
            tokio::select! {
                _ = terminate.recv() => {
                    // A daemon has no part in an orderly stop: it must be ended.
                    if !args.deaf && self.hello.daemon == 0 {
                        break;
                    }
                }
                order = orders.next_line() => match order?.as_deref().and_then(Order::parse) {
                    Some(Order::Exit(code)) => return Ok(exit(code)),
                    // Nothing executes that the referee does not know of.
                    Some(Order::Go { .. }) | None => bail!("the referee is gone"),
                },
                () = sleep(beat) => if !self.beat().await? {
                    return Ok(ExitCode::from(FENCED));
                },
            }
        }
        self.note(records::STOPPING)?;
        let begun = boot_nanos();
        while boot_nanos() - begun < args.slow_stop * crate::clock::MILLI {
            if !self.beat().await? {
                return Ok(ExitCode::from(FENCED));
            }
            sleep(beat).await;
        }
        self.note(records::STOP)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Writes down that it executes; `false` when the register has refused it.
    async fn beat(&mut self) -> Result<bool> {
        self.note(records::BEAT)?;
        self.beats += 1;
        if !self.beats.is_multiple_of(self.write_every) {
            return Ok(true);
        }
        let fenced = (self.beats / self.write_every).is_multiple_of(2);
        let write = Write {
            mode: if fenced { Mode::Fenced } else { Mode::Open },
            partition: self.hello.partition.clone(),
            token: self.hello.token,
        };
        let line = format!("{}\n", write.line());
        self.to_register.write_all(line.as_bytes()).await?;
        let answer = timeout(ANSWER_WITHIN, self.register.next_line()).await??;
        match answer.as_deref() {
            Some("ok") => Ok(true),
            Some("fenced") => Ok(false),
            Some(_) | None => bail!("the register is gone"),
        }
    }

    /// One write of one line, on the referee's clock.
    fn note(&mut self, what: &str) -> Result<()> {
        let now = boot_nanos().saturating_add_signed(self.offset);
        self.record
            .write_all(format!("{what} {now}\n").as_bytes())?;
        Ok(())
    }
}

fn exit(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
