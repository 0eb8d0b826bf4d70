# A folder in which each owner has a file.
import sys

_, FOLDER, _ = sys.argv
TOKEN = int(os.environ["QUORATE_TOKEN"])
shared, data = Shared(FOLDER, TOKEN, os.environ["QUORATE_CLUSTER"]), b""


def take(_):
    global data
    data = shared.take_over()


def write(line):
    global data
    longer = data + f"{TOKEN} {line}\n".encode()
    shared.write(longer)
    data = longer


def blindly(line):
    """Writes as one does that has looked long ago."""
    global newest
    real, newest = newest, lambda _: None
    try:
        write(line)
    finally:
        newest = real


def tokens(_):
    present = newest(pathlib.Path(FOLDER))
    rows = present.read_text().splitlines() if present else []
    return " ".join(row.split(" ")[0] for row in rows) or " "


MORE = {"blindly": blindly}
