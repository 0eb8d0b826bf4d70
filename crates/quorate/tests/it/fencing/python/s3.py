# One object, to which each owner appends its rows.
import os

_, ADDRESS, KEY = sys.argv
TOKEN, CLUSTER = int(os.environ["QUORATE_TOKEN"]), os.environ["QUORATE_CLUSTER"]
client = Client(ADDRESS)
thing = Object(client, "bucket", KEY, TOKEN, CLUSTER)
data, looked = b"", None


def take(_):
    global data
    data = thing.take_over()


def write(line):
    global data
    longer = data + f"{TOKEN} {line}\n".encode()
    thing.write(longer)
    data = longer


def tokens(_):
    try:
        body = client.get_object(Bucket="bucket", Key=KEY)["Body"].read()
    except ClientError:
        return " "
    rows = body.decode().splitlines()[1:]
    return " ".join(row.split(" ")[0] for row in rows) or " "


def look(_):
    global looked
    looked = thing._look()


def late(line):
    """Writes after what was seen at an earlier look."""
    first, again = [looked], thing._look
    thing._look = lambda: first.pop() if first else again()
    try:
        write(line)
    finally:
        thing._look = again


MORE = {"look": look, "late": late}
