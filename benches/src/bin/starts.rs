//! How fast 1,000 processes are started, stopped and reaped by a warden, against posix_spawn of the
//! same; and what a run costs in memory.
//!
//! `cargo run --profile ci -p quorate-benches --bin starts [-- COUNT ROUNDS BALLAST]`
//!
//! BALLAST is how many MiB the process that gives the orders holds, as an agent may: what it holds must not
//! make a start dearer, because it is not the one that forks.
//!
//! Rounds are interleaved: floor, ours, floor. A row whose two floors differ by more than 15 % is void.

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
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use quorate_agent::warden::client::{Client, Terms};
use quorate_agent::warden::protocol::{Order, Reply, RunId, StartRun};
use quorate_agent::warden::{Options, run};
use quorate_benches::program::processor_time;
use quorate_benches::warden::Warden;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Goals of this bench: rate against posix_spawn; seconds to stop and reap.
const RATE_MIN: f64 = 0.75;
const STOP_MAX: Duration = Duration::from_millis(300);
/// How long the idle warden is watched.
const IDLE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    // The bench is its own warden: the same code as in the shipped program.
    if arguments.next_if(|word| word == "warden").is_some() {
        let program = std::env::current_exe().unwrap();
        return run(&Options::from_args(program, arguments).unwrap());
    }
    let mut numbers = arguments.filter_map(|text| text.to_str()?.parse().ok());
    let count = numbers.next().unwrap_or(1000);
    let rounds = numbers.next().unwrap_or(5);
    let ballast = vec![1_u8; usize::try_from(numbers.next().unwrap_or(0)).unwrap() << 20];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let measured = runtime.block_on(measure(count, rounds));
    // Held until now, every page of it.
    std::hint::black_box(&ballast);
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("starts: {cause}");
            ExitCode::FAILURE
        }
    }
}

/// One way of doing it, once.
#[derive(Clone, Copy, Debug)]
struct Sample {
    started: Duration,
    stopped: Duration,
}

async fn measure(count: u64, rounds: u64) -> Outcome<()> {
    println!("{count} x `sleep`: started, stopped and reaped");
    let mut ratios = Vec::new();
    let mut stops = Vec::new();
    for round in 0..rounds {
        let before = floor(count)?;
        let ours = ours(count, round == 0).await?;
        let after = floor(count)?;
        let spawn = (before.started + after.started) / 2;
        let ratio = spawn.as_secs_f64() / ours.started.as_secs_f64();
        let drift = (before.started.as_secs_f64() / after.started.as_secs_f64() - 1.0).abs();
        let void = if drift > 0.15 {
            "  void: the floor moved"
        } else {
            ""
        };
        println!(
            "round {round}: posix_spawn {:.3?} {:.3?}, stop {:.3?} | warden {:.3?}, stop {:.3?} | rate {:.0} % of posix_spawn{void}",
            before.started,
            after.started,
            after.stopped,
            ours.started,
            ours.stopped,
            ratio * 100.0
        );
        if void.is_empty() {
            ratios.push(ratio);
            stops.push(ours.stopped);
        }
    }
    ratios.sort_by(f64::total_cmp);
    stops.sort();
    if ratios.is_empty() {
        return Err("every round is void: the machine is not quiet".into());
    }
    let ratio = ratios[ratios.len() / 2];
    let stop = stops[stops.len() / 2];
    let verdict = |met| if met { "met" } else { "MISSED" };
    println!(
        "median rate {:.0} % (goal {:.0} %: {}), stop {stop:.3?} (goal {STOP_MAX:?}: {})",
        ratio * 100.0,
        RATE_MIN * 100.0,
        verdict(ratio >= RATE_MIN),
        verdict(stop <= STOP_MAX)
    );
    Ok(())
}

fn floor(count: u64) -> Outcome<Sample> {
    let began = Instant::now();
    let mut children = Vec::new();
    for _ in 0..count {
        let child: Child = Command::new("/bin/sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        children.push(child);
    }
    let started = began.elapsed();
    let began = Instant::now();
    for child in &mut children {
        child.kill()?;
    }
    for child in &mut children {
        child.wait()?;
    }
    Ok(Sample {
        started,
        stopped: began.elapsed(),
    })
}

async fn ours(count: u64, report: bool) -> Outcome<Sample> {
    let folder = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let client = Client::spawn(
        &program,
        folder.path(),
        Terms::of_a_trial(Duration::from_secs(5)),
    )
    .await?;
    let (timekeeper, containment) = (client.state.pid, client.state.containment.clone());
    let (mut sender, mut receiver) = (client.sender, client.receiver);
    sender.send(&Order::Arm { deadline: u64::MAX }).await?;
    let empty = Warden::of(timekeeper)?;
    let began = Instant::now();
    let (sent, held) = tokio::join!(
        async {
            for token in 1..=count {
                sender.send(&Order::Start(Box::new(sleep(token)))).await?;
            }
            Outcome::Ok(())
        },
        async {
            let mut outputs: Vec<OwnedFd> = Vec::new();
            for _ in 0..count {
                match receiver.recv().await? {
                    (Reply::Started { .. }, descriptors) => outputs.extend(descriptors),
                    (other, _) => return Err(format!("{other:?}").into()),
                }
            }
            Outcome::Ok(outputs)
        }
    );
    sent?;
    let _outputs = held?;
    let started = began.elapsed();
    if report {
        let warden = Warden::of(timekeeper)?;
        print(&warden, &empty, count, &containment);
        print_idle(&warden).await?;
    }
    let began = Instant::now();
    for token in 1..=count {
        sender.send(&Order::Kill { run: id(token) }).await?;
    }
    for _ in 0..count {
        let reply = receiver.recv().await?.0;
        let Reply::Ended { run, .. } = reply else {
            return Err(format!("{reply:?}").into());
        };
        sender.send(&Order::Forget { run }).await?;
    }
    let stopped = began.elapsed();
    sender.send(&Order::End).await?;
    while receiver.recv().await.is_ok() {}
    Ok(Sample { started, stopped })
}

fn id(token: u64) -> RunId {
    RunId { token, attempt: 1 }
}

fn sleep(token: u64) -> StartRun {
    StartRun {
        run: id(token),
        command: vec!["/bin/sleep".to_owned(), "1000".to_owned()],
        env: vec![
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("QUORATE_TOKEN".to_owned(), token.to_string()),
        ],
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

fn print(warden: &Warden, empty: &Warden, count: u64, containment: &str) {
    let each = |kib: u64| kib as f64 / warden.inits.max(1) as f64;
    println!(
        "containment {containment}: timekeeper PSS {} RSS {} KiB; holder PSS {} RSS {} KiB, \
             {:.2} KiB RSS more for each of {count} runs; init of a run PSS {:.1} RSS {:.1} KiB",
        warden.of_timekeeper.proportional,
        warden.of_timekeeper.resident,
        warden.of_holder.proportional,
        warden.of_holder.resident,
        warden
            .of_holder
            .resident
            .saturating_sub(empty.of_holder.resident) as f64
            / count as f64,
        each(warden.of_inits.proportional),
        each(warden.of_inits.resident),
    );
}

async fn print_idle(warden: &Warden) -> Outcome<()> {
    let used = || anyhow::Ok(processor_time(warden.timekeeper)? + processor_time(warden.holder)?);
    let before = used()?;
    tokio::time::sleep(IDLE).await;
    let share = (used()? - before).as_secs_f64() / IDLE.as_secs_f64();
    println!("idle: {:.2} % of a core", share * 100.0);
    Ok(())
}
