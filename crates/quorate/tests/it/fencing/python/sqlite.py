# One feed in a SQLite file.
import os
import sys
from contextlib import closing

_, PATH, FEED = sys.argv
feed = None


def take(_=None):
    global feed
    feed = Feed(PATH, FEED, int(os.environ["QUORATE_TOKEN"]), os.environ["QUORATE_CLUSTER"])


def write(line):
    if feed is None:
        take()
    feed.write(line)


def tokens(_):
    with closing(sqlite3.connect(PATH, timeout=30)) as database:
        rows = database.execute("select position, token from arrivals order by number").fetchall()
    assert [position for position, _ in rows] == list(range(len(rows))), rows
    return " ".join(str(token) for _, token in rows) or " "
