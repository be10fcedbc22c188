"""An HTTP server on a thread of its own, beside a stream that must not suffer from its clients."""

import logging
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

log = logging.getLogger(__name__)

MOST_CLIENTS = 64
"""Clients served at once. Each holds a thread and a file open, and the stream beside needs some."""

PATIENCE_S = 10.0
"""With a client that neither asks nor reads."""


class HttpServer(ThreadingHTTPServer):
    """Serves a bounded number of clients, each on a thread of its own; those beyond are let go at once.

    `address` is "http://HOST:PORT", port 0 takes a free one. Raises OSError where it cannot listen.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._room = threading.Semaphore(MOST_CLIENTS)
        super().__init__((host, port), type("Handler", (handler,), {"timeout": PATIENCE_S}))
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="derain-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away while it asks, or asks for nonsense, is no traceback's worth."""
        error = sys.exception()
        level = logging.DEBUG if isinstance(error, OSError) else logging.WARNING
        log.log(level, "client %s gets no answer: %s: %s", client_address[0], type(error).__name__, error)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin with a client, if there is room."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a client to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()
