//! The network between the directors of a test: each is reached through a proxy that knows by the source
//! address who dialled, and delays what goes from one to another as long as that way is cut. What was on
//! the way arrives when it is mended, as with TCP.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// From whom to whom nothing arrives.
type Cut = BTreeSet<(usize, usize)>;

/// The ways of one cluster.
pub(super) struct Net(watch::Sender<Cut>);

impl Net {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Cut::new()))
    }

    /// Cuts the way from one to another; the way back stays.
    pub(super) fn cut_one_way(&self, from: usize, to: usize) {
        self.0.send_modify(|cut| {
            cut.insert((from, to));
        });
    }

    /// Cuts both ways between two.
    pub(super) fn cut(&self, one: usize, other: usize) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Cuts all that go between the two sides.
    pub(super) fn split(&self, one: &[usize], other: &[usize]) {
        for a in one {
            for b in other {
                self.cut(*a, *b);
            }
        }
    }

    pub(super) fn mend(&self) {
        self.0.send_replace(Cut::new());
    }
}

/// The source address of the director with this number.
pub(super) fn source(number: usize) -> IpAddr {
    let last = u8::try_from(10 + number).unwrap();
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

fn number(source: IpAddr) -> usize {
    match source {
        IpAddr::V4(address) => usize::from(address.octets()[3]).checked_sub(10).unwrap(),
        IpAddr::V6(address) => panic!("{address} is nobody's"),
    }
}

/// Where one director is reached.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    tasks: JoinSet<()>,
    broken: watch::Sender<u64>,
}

impl Proxy {
    pub(super) async fn new(number: usize, net: &Net) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = watch::Sender::new(None);
        let broken = watch::Sender::new(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(
            listener,
            number,
            target.subscribe(),
            net.0.subscribe(),
            broken.subscribe(),
        ));
        Self {
            address,
            target,
            tasks,
            broken,
        }
    }

    /// Breaks every connection; new ones are taken.
    pub(super) fn break_all(&self) {
        self.broken.send_modify(|times| *times += 1);
    }

    /// Breaks every connection and refuses new ones for good, as the host of a process that has ended.
    pub(super) async fn refuse(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Where the director listens now; nowhere while it is down.
    pub(super) fn lead_to(&self, target: Option<SocketAddr>) {
        self.target.send_replace(target);
    }
}

async fn serve(
    listener: TcpListener,
    to: usize,
    target: watch::Receiver<Option<SocketAddr>>,
    cut: watch::Receiver<Cut>,
    mut broken: watch::Receiver<u64>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, from) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            Some(_) = connections.join_next() => continue,
            Ok(()) = broken.changed() => {
                connections.shutdown().await;
                continue;
            }
        };
        let target = *target.borrow();
        let (from, cut) = (number(from.ip()), cut.clone());
        connections.spawn(async move {
            if let Some(target) = target
                && let Ok(onward) = connect(from, target).await
            {
                join(socket, onward, (from, to), cut).await;
            }
        });
    }
}

/// The director that is reached sees whose connection it is.
async fn connect(from: usize, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source(from), 0))?;
    socket.connect(target).await
}

async fn join(
    near: TcpStream,
    far: TcpStream,
    (from, to): (usize, usize),
    cut: watch::Receiver<Cut>,
) {
    drop((near.set_nodelay(true), far.set_nodelay(true)));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    // When one way ends the other does: neither side is served half.
    tokio::select! {
        () = pump(near_read, far_write, (from, to), cut.clone()) => {}
        () = pump(far_read, near_write, (to, from), cut) => {}
    }
}

async fn pump(
    mut read: impl tokio::io::AsyncRead + Unpin,
    mut write: impl tokio::io::AsyncWrite + Unpin,
    way: (usize, usize),
    mut cut: watch::Receiver<Cut>,
) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let Ok(count) = read.read(&mut bytes).await else {
            return;
        };
        if cut.wait_for(|cut| !cut.contains(&way)).await.is_err()
            || count == 0
            || write.write_all(&bytes[..count]).await.is_err()
        {
            return;
        }
    }
}
