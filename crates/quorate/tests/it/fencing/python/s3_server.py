# A stand-in for S3 that does what its documentation says of conditional writes: `If-None-Match: *` only
# creates, `If-Match` only replaces the object with that ETag, each in one step; 412 when the condition does
# not hold, 404 when there is nothing to match, and now and then 409 for a request that came at the same
# time as others. The ETag is the MD5 of the content.
import hashlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

objects, lock, asked = {}, threading.Lock(), 0


def etag(body):
    return f'"{hashlib.md5(body).hexdigest()}"'


def put(path, body, headers):
    global asked
    with lock:
        asked += 1
        present = objects.get(path)
        if asked % 7 == 0:
            return 409, b"ConditionalRequestConflict", None
        if headers["If-None-Match"] == "*" and present is not None:
            return 412, b"PreconditionFailed", None
        if headers["If-Match"] is not None:
            if present is None:
                return 404, b"NoSuchKey", None
            if headers["If-Match"] != etag(present):
                return 412, b"PreconditionFailed", None
        objects[path] = body
        return 200, b"", etag(body)


def get(path):
    with lock:
        present = objects.get(path)
    return (404, b"NoSuchKey", None) if present is None else (200, present, etag(present))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(*get(self.path))

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(*put(self.path, body, self.headers))

    def answer(self, status, body, tag):
        self.send_response(status)
        if tag:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
for line in sys.stdin:
    print("@end" if line == "end\n" else f"http://127.0.0.1:{server.server_port}")
