//! The network between an agent and a director: a relay that can be told to be a bad one. What it holds
//! back it holds back silently, as a network does: no connection ends, and nothing is lost or repeated
//! within one, because TCP would mend that anyway.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::net::sockopt::set_socket_linger;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Between two looks at what it is told while nothing comes.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two looks while it holds something back.
const HELD_EVERY: Duration = Duration::from_millis(5);
/// How long a way to the other side is looked for.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// The most that is taken at once.
const PIECE: usize = 64 * 1024;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the agent to the director.
    Up,
    /// From the director to the agent.
    Down,
}

#[derive(Debug, Default)]
struct Told {
    up_cut: AtomicBool,
    down_cut: AtomicBool,
    /// How long each piece takes, in milliseconds.
    delay: AtomicU64,
    /// Connections that were opened before this many are reset.
    reset_before: AtomicU64,
    /// Connections that were opened before this many stay open and carry nothing any more.
    dead_before: AtomicU64,
    opened: AtomicU64,
}

impl Told {
    fn cut(&self, way: Way) -> bool {
        match way {
            Way::Up => self.up_cut.load(Ordering::Relaxed),
            Way::Down => self.down_cut.load(Ordering::Relaxed),
        }
    }
}

/// A relay that serves until the process ends.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    told: Arc<Told>,
}

impl Link {
    /// Listens at one address and passes on to the other.
    pub(crate) fn open(listen: SocketAddr, to: SocketAddr) -> Result<Self> {
        Self::serve(to, move || TcpListener::bind(listen))
            .with_context(|| format!("a relay at {listen}"))
    }

    /// The same in the network of a process, where both addresses are meant.
    pub(crate) fn open_inside(pid: u32, listen: SocketAddr, to: SocketAddr) -> Result<Self> {
        Self::serve(to, move || {
            let network = File::open(format!("/proc/{pid}/ns/net"))?;
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            TcpListener::bind(listen)
        })
        .with_context(|| format!("a relay at {listen} in the network of process {pid}"))
    }

    /// A thread listens so and passes on what comes.
    fn serve(
        to: SocketAddr,
        listen: impl FnOnce() -> io::Result<TcpListener> + Send + 'static,
    ) -> Result<Self> {
        let told: Arc<Told> = Arc::default();
        let (listening, listens) = mpsc::sync_channel(1);
        let own = Arc::clone(&told);
        spawn(move || {
            let listener = listen();
            // Whoever waits for it reads it at once.
            let _read = listening.send(listener.as_ref().map(drop).map_err(io::Error::kind));
            for near in listener.iter().flat_map(TcpListener::incoming).flatten() {
                let told = Arc::clone(&own);
                // Each on its own: one that finds no way must not hold up the others.
                let passed = spawn(move || {
                    // Where there is nobody or no way, it ends as it would without a relay.
                    let _ended = pass(near, to, &told);
                });
                if let Err(cause) = passed {
                    eprintln!("relay: {cause}");
                }
            }
        })?;
        listens.recv()?.map_err(io::Error::from)?;
        Ok(Self { told })
    }

    /// Cuts one way, or heals it.
    pub(crate) fn cut(&self, way: Way, cut: bool) {
        let flag = match way {
            Way::Up => &self.told.up_cut,
            Way::Down => &self.told.down_cut,
        };
        flag.store(cut, Ordering::Relaxed);
    }

    /// Makes each piece take so many milliseconds.
    pub(crate) fn delay(&self, millis: u64) {
        self.told.delay.store(millis, Ordering::Relaxed);
    }

    /// Resets every connection that is open.
    pub(crate) fn reset(&self) {
        let opened = self.told.opened.load(Ordering::Relaxed);
        self.told.reset_before.store(opened, Ordering::Relaxed);
    }

    /// Makes every connection that is open carry nothing any more, without an end.
    pub(crate) fn forget(&self) {
        let opened = self.told.opened.load(Ordering::Relaxed);
        self.told.dead_before.store(opened, Ordering::Relaxed);
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("relay".to_owned());
    thread.spawn(work).map(|_thread| ())
}

/// Passes a connection on, both ways.
fn pass(near: TcpStream, to: SocketAddr, told: &Arc<Told>) -> io::Result<()> {
    let far = TcpStream::connect_timeout(&to, CONNECT_WITHIN)?;
    let number = told.opened.fetch_add(1, Ordering::Relaxed);
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK_EVERY))?;
        stream.set_write_timeout(Some(LOOK_EVERY))?;
    }
    let pipes = [
        (Way::Up, near.try_clone()?, far.try_clone()?),
        (Way::Down, far, near),
    ];
    for (way, from, to) in pipes {
        let told = Arc::clone(told);
        let mut pipe = Pipe {
            way,
            number,
            from,
            to,
            told,
        };
        spawn(move || pipe.run())?;
    }
    Ok(())
}

/// One way of one connection.
struct Pipe {
    way: Way,
    number: u64,
    from: TcpStream,
    to: TcpStream,
    told: Arc<Told>,
}

impl Pipe {
    fn run(&mut self) {
        let mut piece = vec![0; PIECE];
        loop {
            if !self.held() {
                return;
            }
            match self.from.read(&mut piece) {
                Ok(0) => {
                    // An end is news like any other.
                    if self.held() {
                        let _gone = self.to.shutdown(Shutdown::Write);
                    }
                    return;
                }
                Ok(count) => {
                    let delay = self.told.delay.load(Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(delay));
                    if !self.held() || !self.write(piece.get(..count).unwrap_or_default()) {
                        return;
                    }
                }
                Err(cause) if is_timeout(&cause) => {}
                Err(_gone) => {
                    let _gone = self.to.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }

    /// Waits as long as this way is cut; `false` when the connection is to be reset.
    fn held(&self) -> bool {
        loop {
            if self.number < self.told.reset_before.load(Ordering::Relaxed) {
                for stream in [&self.from, &self.to] {
                    // Closed with something to say, it ends with RST and not in order.
                    let _gone = set_socket_linger(stream, Some(Duration::ZERO));
                }
                return false;
            }
            let dead = self.number < self.told.dead_before.load(Ordering::Relaxed);
            if !dead && !self.told.cut(self.way) {
                return true;
            }
            std::thread::sleep(HELD_EVERY);
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.to.write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(cause) if is_timeout(&cause) => {
                    if !self.held() {
                        return false;
                    }
                }
                Err(_gone) => {
                    let _gone = self.from.shutdown(Shutdown::Both);
                    return false;
                }
            }
        }
        true
    }
}

fn is_timeout(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay in front of a listener, with a connection through it.
    fn through() -> (Link, TcpStream, TcpStream) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let far = TcpListener::bind(any).unwrap();
        let free = TcpListener::bind(any).unwrap().local_addr().unwrap();
        let link = Link::open(free, far.local_addr().unwrap()).unwrap();
        let mut near = TcpStream::connect(free).unwrap();
        let mut far = far.accept().unwrap().0;
        for stream in [&near, &far] {
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
        }
        // Only then does the relay certainly know of it.
        far.write_all(b"?").unwrap();
        near.read_exact(&mut [0; 1]).unwrap();
        (link, near, far)
    }

    #[test]
    fn a_way_that_is_cut_carries_nothing_and_afterwards_everything() {
        let (link, mut near, mut far) = through();
        link.cut(Way::Up, true);
        near.write_all(b"up").unwrap();
        far.write_all(b"down").unwrap();
        let mut down = [0; 4];
        near.read_exact(&mut down).unwrap();
        assert_eq!(&down, b"down");
        far.set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        assert!(is_timeout(&far.read(&mut down).unwrap_err()));
        link.cut(Way::Up, false);
        far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut up = [0; 2];
        far.read_exact(&mut up).unwrap();
        assert_eq!(&up, b"up");
    }

    #[test]
    fn open_connections_are_reset_or_forgotten_and_new_ones_are_not() {
        let (link, mut near, mut far) = through();
        link.forget();
        near.write_all(b"x").unwrap();
        far.set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        assert!(is_timeout(&far.read(&mut [0; 1]).unwrap_err()));
        link.reset();
        let ended = near.read(&mut [0; 1]).map_err(|cause| cause.kind());
        assert_eq!(ended, Err(io::ErrorKind::ConnectionReset));
    }
}
