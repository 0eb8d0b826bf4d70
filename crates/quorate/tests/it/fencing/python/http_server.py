# An application that keeps rows in a file, behind the fence. Requests come in threads of their own.
import os
import sys
import threading
import time
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

_, FOLDER, _ = sys.argv
ROWS, HELD, FENCES = (os.path.join(FOLDER, name) for name in ("rows", "held", "fences.sqlite"))
# What a newer owner needs to get in, if anything lets it.
WINDOW = 0.3
arrived = 0


def hold(token):
    """Waits for another request, and then whether a newer owner is stored while this one is served."""
    before = arrived
    open(HELD, "x").close()
    late = time.monotonic() + 30
    while arrived == before and time.monotonic() < late:
        time.sleep(0.01)
    late = time.monotonic() + WINDOW
    with closing(sqlite3.connect(FENCES, timeout=30)) as database:
        while time.monotonic() < late:
            if database.execute("select max(token) from fences").fetchone() != (int(token),):
                return "overtaken"
            time.sleep(0.01)
    return "undisturbed" if arrived > before else "alone"


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["REQUEST_METHOD"] == "POST":
        line = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode()
        token = environ["HTTP_X_FENCE_TOKEN"]
        if line == "hold":
            line = hold(token)
        with open(ROWS, "a", encoding="utf-8") as rows:
            rows.write(f"{token} {line}\n")
        return []
    if not os.path.exists(ROWS):
        return []
    with open(ROWS, "rb") as rows:
        return [rows.read()]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class Handler(WSGIRequestHandler):
    def log_message(self, *_):
        pass


fenced = Fence(application, FENCES)


def counted(environ, start_response):
    global arrived
    arrived += 1
    return fenced(environ, start_response)


server = make_server("127.0.0.1", 0, counted, Server, Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
for line in sys.stdin:
    print("@end" if line == "end\n" else f"http://127.0.0.1:{server.server_port}")
