"""A folder's files on loopback, for the tests that use a browser."""

import functools
import http.server
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client):  # a browser hangs up when it has seen enough
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    "The folder's address on loopback."
    server = Server(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
