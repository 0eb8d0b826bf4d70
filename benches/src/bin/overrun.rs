//! How long a run executes past its deadline when its agent says nothing and both processes of its
//! warden are stopped: the kernel alone is left to end it.
//!
//! `cargo run --profile ci -p quorate-benches --bin overrun [-- COUNT]`
//!
//! A run and a daemon that hides from it write the clock to a shared file every millisecond; the last
//! beat of either tells how long it lived, to a millisecond, and the proof of death is seen from outside.

#![expect(
    clippy::print_stdout,
    reason = "a measurement is read on standard output"
)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement that fails is no measurement"
)]

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use quorate_agent::warden::client::{Client, Terms};
use quorate_agent::warden::protocol::{Order, Reply, RunId, StartRun};
use quorate_agent::warden::{KERNEL, Options, run};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Goal of this bench for the 99.9th of a hundred.
const OVERRUN_MAX: Duration = Duration::from_millis(50);
/// Between two beats.
const BEAT: Duration = Duration::from_millis(1);
/// How far ahead the deadline is: time to start both and to stop the warden. Doubled when that was not
/// enough, up to the second.
const AHEAD: Duration = Duration::from_millis(250);
const AHEAD_MAX: Duration = Duration::from_secs(8);
/// What takes longer is no kill.
const PROOF_WITHIN: Duration = Duration::from_secs(20);
/// Bytes of one beat.
const BEAT_BYTES: u64 = 8;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    // The bench is its own warden, the same code as in the shipped program, and its own run.
    if arguments.next_if(|word| word == "warden").is_some() {
        let program = std::env::current_exe().unwrap();
        return run(&Options::from_args(program, arguments).unwrap());
    }
    let words: Vec<String> = arguments.map(|word| word.into_string().unwrap()).collect();
    if let [word, file, place] = words.as_slice()
        && word == "beat"
    {
        beat(Path::new(file), place.parse().unwrap());
    }
    let count = words.first().map_or(1000, |word| word.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match runtime.block_on(measure(count)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("overrun: {cause}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the clock until it is killed. The one at place 0 starts a daemon that does so at place 1.
fn beat(path: &Path, place: u64) -> ! {
    let file = File::options().write(true).open(path).unwrap();
    if place == 0 {
        // The shell ends at once and leaves its child in a session of its own.
        let program = std::env::current_exe().unwrap();
        let hide = format!(
            "setsid {} beat {} 1 & exit",
            program.display(),
            path.display()
        );
        let status = Command::new("/bin/sh").args(["-c", &hide]).status();
        assert!(status.unwrap().success());
    }
    loop {
        file.write_all_at(&boot_nanos().to_le_bytes(), place * BEAT_BYTES)
            .unwrap();
        std::thread::sleep(BEAT);
    }
}

/// What one repetition saw past the deadline, in nanoseconds.
#[derive(Clone, Copy)]
struct Sample {
    /// The last beat of the command or the daemon; zero when both were before the deadline.
    beat: u64,
    /// When the proof of death was there.
    proof: u64,
}

async fn measure(count: usize) -> Outcome<()> {
    println!("{count} x a run with a daemon, agent silent, both processes of the warden stopped");
    let mut samples = Vec::new();
    let mut late = 0;
    let mut ahead = AHEAD;
    while samples.len() < count {
        match once(ahead).await? {
            Some(sample) => samples.push(sample),
            None if ahead < AHEAD_MAX => {
                late += 1;
                ahead *= 2;
            }
            None => return Err("this machine is too busy to stop a warden in time".into()),
        }
    }
    let beats = print("last beat", samples.iter().map(|sample| sample.beat));
    print("proof", samples.iter().map(|sample| sample.proof));
    let verdict = if beats <= OVERRUN_MAX {
        "met"
    } else {
        "MISSED"
    };
    println!(
        "{late} made again, being late; p99.9 of the last beat {beats:.3?} (goal {OVERRUN_MAX:?}: {verdict})"
    );
    Ok(())
}

/// Prints what is usual and what is worst; the 99.9th of a hundred, which is the worst of fewer than a
/// thousand.
fn print(what: &str, nanos: impl Iterator<Item = u64>) -> Duration {
    let mut sorted: Vec<Duration> = nanos.map(Duration::from_nanos).collect();
    sorted.sort();
    let at = |thousandths: usize| sorted[(thousandths * sorted.len()).div_ceil(1000).max(1) - 1];
    let (p50, p99, p999) = (at(500), at(990), at(999));
    println!(
        "{what} past the deadline: p50 {p50:.3?}  p99 {p99:.3?}  p99.9 {p999:.3?}  max {:.3?}",
        sorted[sorted.len() - 1]
    );
    p999
}

/// `None` when the deadline came before everything was stopped.
async fn once(ahead: Duration) -> Outcome<Option<Sample>> {
    let folder = tempfile::tempdir()?;
    let beats = folder.path().join("beats");
    let file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&beats)?;
    file.set_len(2 * BEAT_BYTES)?;
    let program = std::env::current_exe()?;
    let mut client = Client::spawn(
        &program,
        folder.path(),
        Terms::of_a_trial(Duration::from_secs(60)),
    )
    .await?;
    if client.state.containment != KERNEL {
        return Err(format!(
            "no containment by the kernel: {:?}",
            client.state.shortfalls
        )
        .into());
    }
    let deadline = boot_nanos() + u64::try_from(ahead.as_nanos())?;
    client.sender.send(&Order::Arm { deadline }).await?;
    let start = Order::Start(Box::new(beater(&program, &beats)));
    client.sender.send(&start).await?;
    let (reply, _output) = client.receiver.recv().await?;
    let Reply::Started { .. } = reply else {
        return Err(format!("{reply:?}").into());
    };
    let up = Instant::now();
    while (read(&file, 0)? == 0 || read(&file, 1)? == 0) && up.elapsed() < ahead {
        tokio::time::sleep(BEAT).await;
    }
    let timekeeper = client.state.pid;
    let holder = children(timekeeper)?;
    for pid in std::iter::once(timekeeper).chain(holder) {
        let pid = Pid::from_raw(i32::try_from(pid)?).ok_or("no process")?;
        // One that is gone already was too late, which is seen below.
        let _gone = kill_process(pid, Signal::STOP);
    }
    // A signal takes a moment to stop a process that sleeps.
    while !is_stopped(timekeeper) && boot_nanos() < deadline {
        tokio::time::sleep(BEAT).await;
    }
    let in_time = is_stopped(timekeeper) && boot_nanos() < deadline && read(&file, 1)? != 0;
    client.proof.proven_dead(PROOF_WITHIN).await?;
    let proof = boot_nanos();
    let last = read(&file, 0)?.max(read(&file, 1)?);
    if let Some(left) = quorate_agent::warden::group::Leftover::of(folder.path())
        && !left.clear(PROOF_WITHIN)
    {
        return Err("the control group of the warden is not empty after the proof".into());
    }
    Ok(in_time.then_some(Sample {
        beat: last.saturating_sub(deadline),
        proof: proof.saturating_sub(deadline),
    }))
}

fn beater(program: &Path, beats: &Path) -> StartRun {
    let words = [
        &program.display().to_string(),
        "beat",
        &beats.display().to_string(),
        "0",
    ];
    StartRun {
        run: RunId {
            token: 1,
            attempt: 1,
        },
        command: words.map(str::to_owned).into(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        working_dir: "/".to_owned(),
        user: None,
        program: None,
        root: true,
        files_max: None,
        notify_socket: None,
        api_socket: None,
        handed_over: Vec::new(),
    }
}

fn read(file: &File, place: u64) -> Outcome<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, place * BEAT_BYTES)?;
    Ok(u64::from_le_bytes(bytes))
}

fn children(pid: u32) -> Outcome<Vec<u32>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?)
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('T'))
}

fn boot_nanos() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}
