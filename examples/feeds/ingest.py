#!/usr/bin/env python3
"""Takes in one feed: connects, and writes every row and the next offset into SQLite.

Three things make "exactly once" out of restarts, moves and crashes:

* a row and the offset after it are written in one transaction, so after whatever end the next
  process goes on exactly behind the last row that is in;
* that transaction counts only while no newer owner has been here. quorate gives every owner of the
  feed a token higher than all before ($QUORATE_TOKEN), and a writer whose token is lower than the
  one stored is refused, however late it wakes up;
* on SIGTERM the transaction in hand is finished or undone, never halved.
"""

import argparse
import os
import signal
import socket
import sqlite3
import sys
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))

# The server says at least "idle" every two seconds.
SILENT_MAX = 10.0
# So long a server may be away; then whoever started us may try elsewhere.
AWAY_MAX = 60.0

EX_TEMPFAIL = 75  # sysexits.h: the connection ended, not the program
EX_FENCED = 3  # a newer owner was here

SCHEMA = """
create table if not exists feeds (
    feed  text primary key,
    next  integer not null,     -- offset of the next row
    token integer not null      -- highest token that was ever here
);
create table if not exists arrivals (
    number   integer primary key autoincrement,     -- order of arrival over all feeds
    feed     text not null,
    position integer not null,  -- no unique index: the check must be able to see a row twice
    token    integer not null,
    agent    text not null,
    line     text not null
);
"""


class Fenced(Exception):
    """A newer owner of the feed has been here."""


class Disconnected(Exception):
    """The server is away, or said something that is not of its protocol."""


def open_database(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # All feeds write into one file; each waits its turn.
    database = sqlite3.connect(path, timeout=30, isolation_level=None)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = normal")
    database.executescript(SCHEMA)
    return database


class Feed:
    """One feed in the database, as one owner may write it."""

    def __init__(self, database, feed, token, agent):
        self.database, self.feed, self.token, self.agent = database, feed, token, agent
        with Transaction(database):
            database.execute(
                "insert into feeds values (?, 0, ?) on conflict do nothing", (feed, token)
            )
            # From here on every owner with a lower token is refused.
            self._guard("update feeds set token = :token where feed = :feed and token <= :token")
            (self.next,) = database.execute(
                "select next from feeds where feed = ?", (feed,)
            ).fetchone()

    def write(self, position, line):
        """The row and the offset after it, both or neither."""
        with Transaction(self.database):
            self._guard(
                "update feeds set next = next + 1"
                " where feed = :feed and token = :token and next = :position",
                position=position,
            )
            self.database.execute(
                "insert into arrivals (feed, position, token, agent, line) values (?, ?, ?, ?, ?)",
                (self.feed, position, self.token, self.agent, line),
            )
        self.next = position + 1

    def _guard(self, statement, **values):
        changed = self.database.execute(
            statement, {"feed": self.feed, "token": self.token, **values}
        ).rowcount
        if changed != 1:
            stored, following = self.database.execute(
                "select token, next from feeds where feed = ?", (self.feed,)
            ).fetchone()
            raise Fenced(
                f"token {self.token} may not write {self.feed}:"
                f" token {stored} was here, and its next row is {following}"
            )


class Transaction:
    """Takes the write lock at once, so that what is read inside is still true at its end."""

    def __init__(self, database):
        self.database = database

    def __enter__(self):
        self.database.execute("begin immediate")

    def __exit__(self, kind, error, trace):
        # A signal may end the program right after the commit: then there is nothing to undo.
        if self.database.in_transaction:
            self.database.execute("commit" if kind is None else "rollback")


def rows(host, port, feed, offset):
    """The rows of a feed from this offset on, as they come."""
    try:
        connection = socket.create_connection((host, port), timeout=SILENT_MAX)
        with connection, connection.makefile("rw", encoding="utf-8", newline="\n") as stream:
            stream.write(f"feed {feed} from {offset}\n")
            stream.flush()
            kind, _, rest = line_of(stream).partition(" ")
            if kind != "ok":
                raise Disconnected(f"the server refused: {kind} {rest}")
            yield None, f"{rest} rows in all, going on from row {offset}"
            while True:
                kind, _, rest = line_of(stream).partition(" ")
                if kind == "row":
                    position, _, row = rest.partition(" ")
                    yield int(position), row
                elif kind != "idle":
                    raise Disconnected(f"the server said {kind!r}")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise Disconnected(str(error)) from error


def line_of(stream):
    line = stream.readline()
    # Without its end a line may be only half of one.
    if not line.endswith("\n"):
        raise Disconnected("the server closed the connection")
    return line[:-1]


def tell_ready():
    """READY=1 frees our place in the ramp, as programs under systemd say it too."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", address)


def ingest(feed, host, port):
    ready, last_seen, pause = False, time.monotonic(), 0.1
    while True:
        try:
            for position, row in rows(host, port, feed.feed, feed.next):
                last_seen, pause = time.monotonic(), 0.1
                if position is None:
                    print(f"{feed.feed}: {row}, as {feed.agent} with token {feed.token}", flush=True)
                    if not ready:
                        tell_ready()
                        ready = True
                elif position != feed.next:
                    raise Disconnected(f"row {position} came where {feed.next} was due")
                else:
                    feed.write(position, row)
        except Disconnected as reason:
            if time.monotonic() - last_seen > AWAY_MAX:
                print(f"{feed.feed}: {reason}; giving up", file=sys.stderr, flush=True)
                return EX_TEMPFAIL
            print(f"{feed.feed}: {reason}; trying again in {pause:.1f} s", file=sys.stderr, flush=True)
            time.sleep(pause)
            pause = min(pause * 2, 2.0)


def main():
    parser = argparse.ArgumentParser(description="Takes in one feed.")
    parser.add_argument("--feed", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7480)
    parser.add_argument("--token", type=int, default=os.environ.get("QUORATE_TOKEN"))
    parser.add_argument("--agent", default=os.environ.get("QUORATE_AGENT") or "nobody")
    options = parser.parse_args()
    if options.token is None:
        parser.error("no token: quorate sets QUORATE_TOKEN; by hand, write --token 1")
    # An exception, so that the transaction in hand is undone or was already finished.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    path = os.environ.get("FEEDS_DB") or os.path.join(FOLDER, "out", "feeds.sqlite")
    try:
        database = open_database(path)
        return ingest(Feed(database, options.feed, options.token, options.agent), options.host, options.port)
    except Fenced as reason:
        print(f"refused: {reason}", file=sys.stderr, flush=True)
        return EX_FENCED
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
