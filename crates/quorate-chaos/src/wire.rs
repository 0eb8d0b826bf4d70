//! What a worker says to the referee before it does anything, and what it is answered.

/// The first line of every process of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// `SERVICE/KEY`.
    pub(crate) partition: String,
    pub(crate) token: u64,
    pub(crate) attempt: u64,
    pub(crate) agent: String,
    /// 0 for the command itself, else the how-manieth daemon of it.
    pub(crate) daemon: u32,
    /// Its own clock, which has an offset where its agent lives in a time namespace.
    pub(crate) clock: u64,
    /// The token in its token file.
    pub(crate) filed: u64,
}

impl Hello {
    /// As it is sent.
    pub(crate) fn line(&self) -> String {
        let Self {
            partition,
            token,
            attempt,
            agent,
            daemon,
            clock,
            filed,
        } = self;
        format!("hello {partition} {token} {attempt} {agent} {daemon} {clock} {filed}")
    }

    /// Reads it.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("hello ")?.split(' ');
        Some(Self {
            partition: words.next()?.to_owned(),
            token: words.next()?.parse().ok()?,
            attempt: words.next()?.parse().ok()?,
            agent: words.next()?.to_owned(),
            daemon: words.next()?.parse().ok()?,
            clock: words.next()?.parse().ok()?,
            filed: words.next()?.parse().ok()?,
        })
    }
}

/// What the referee tells a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Begin, as the process of this number; so many nanoseconds lead from its clock to the referee's.
    Go { id: u64, offset: i64 },
    /// End with this code. May also come later.
    Exit(i32),
}

impl Order {
    /// As it is sent.
    pub(crate) fn line(self) -> String {
        match self {
            Self::Go { id, offset } => format!("go {id} {offset}"),
            Self::Exit(code) => format!("exit {code}"),
        }
    }

    /// Reads it.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        match words.next()? {
            "go" => Some(Self::Go {
                id: words.next()?.parse().ok()?,
                offset: words.next()?.parse().ok()?,
            }),
            "exit" => Some(Self::Exit(words.next()?.parse().ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let hello = Hello {
            partition: "plain/p01".to_owned(),
            token: 17,
            attempt: 2,
            agent: "a1".to_owned(),
            daemon: 1,
            clock: 123_456,
            filed: 17,
        };
        assert_eq!(Hello::parse(&hello.line()), Some(hello));
        for order in [Order::Go { id: 3, offset: -5 }, Order::Exit(75)] {
            assert_eq!(Order::parse(&order.line()), Some(order));
        }
        assert_eq!(Order::parse("go"), None);
    }
}
