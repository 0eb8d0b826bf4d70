# A path of a server, to which each owner posts its rows.
import sys

_, ADDRESS, FEED = sys.argv
URL = f"{ADDRESS}/feeds/{FEED}"


def take(_):
    ask(URL, "GET")


def write(line):
    ask(URL, "POST", line.encode())


def bare(said):
    """A request with just these headers; its status."""
    method, *fence = said.split(" ")
    body = b"x" if method == "POST" else None
    request = urllib.request.Request(URL, data=body, method=method)
    for name, value in zip(("X-Fence-Token", "X-Fence-Cluster"), fence):
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return str(error.code)


def tokens(_):
    with urllib.request.urlopen(URL, timeout=30) as answer:
        rows = answer.read().decode().splitlines()
    return " ".join(row.split(" ")[0] for row in rows) or " "


MORE = {"bare": bare}
