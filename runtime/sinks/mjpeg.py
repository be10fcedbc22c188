"""`mjpeg://127.0.0.1:8090`: a stream any browser shows, Motion JPEG over HTTP."""

import logging
import select
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

import cv2

from derain.runtime.address import host_and_port, is_local, local_names
from derain.runtime.frames import Image, to_bgr
from derain.runtime.http_server import HttpServer
from derain.runtime.manifest import FrameSpec
from derain.runtime.sinks.base import Sink, register

log = logging.getLogger(__name__)
HOST, PORT = "127.0.0.1", 8090
QUALITY = 85
BOUNDARY = "derain-frame"
LOOK_S = 1.0
"""Between looks at whether a client is still there."""


@register("mjpeg")
class HttpStream(Sink):
    """Serves the newest frame to every client, at `http://host:port/`; on this machine alone unless a host is given.

    Frames are coded on the clients' threads, once each and only while somebody looks, so that `write` costs nothing; a
    slow client misses frames and holds nobody up. `address` is where it listens; port 0 takes a free one.
    """

    def __init__(self, location: str, spec: FrameSpec, fps: float | None) -> None:
        super().__init__(f"mjpeg://{location}", spec, fps)
        try:
            host, port = host_and_port(location.strip("/"), HOST, PORT)
        except ValueError as error:
            raise ValueError(f"{self.location}: {error}") from error
        self._newest = threading.Condition()
        self._image: Image | None = None
        self._number = 0
        self._open = True
        self._jpeg: tuple[int, bytes] = (0, b"")
        self._coding = threading.Lock()
        handler = type("Handler", (_Handler,), {"stream": self, "names": local_names(host) if is_local(host) else None})
        try:
            self._server = HttpServer(host, port, handler)
        except OSError as error:
            raise OSError(f"{self.location}: cannot listen there: {error.strerror or error}: give another") from error
        self.address = self._server.address + "/"

    def _write(self, image: Image, captured_ns: int, raw: bool) -> None:
        with self._newest:
            self._image, self._number = image, self._number + 1
            self._newest.notify_all()

    def next_jpeg(self, after: int, patience_s: float | None = None) -> tuple[int, bytes] | None:
        """Wait for a frame newer than number `after`: its number and its JPEG; None once the sink is closed.

        TimeoutError where none came in that time.
        """
        with self._newest:
            came = self._newest.wait_for(lambda: self._number > after or not self._open, patience_s)
            if not self._open:
                return None
            if not came:
                raise TimeoutError
            number, image = self._number, self._image
        assert image is not None
        with self._coding:
            if self._jpeg[0] < number:
                _, coded = cv2.imencode(".jpg", to_bgr(image, self.spec), (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
                self._jpeg = number, coded.tobytes()
            return self._jpeg

    def close(self) -> None:
        """Let every client go and stop listening."""
        with self._newest:
            if not self._open:
                return
            self._open = False
            self._newest.notify_all()
        self._server.close()


class _Handler(BaseHTTPRequestHandler):
    """One client."""

    stream: HttpStream
    names: tuple[str, ...] | None
    """Those it may be asked for by; None: any."""

    def do_GET(self) -> None:
        """Send frames until the client or the sink goes."""
        if self.path != "/":
            self.send_error(404)
            return
        named, _, port = self.headers.get("Host", "").rpartition(":")
        if self.names is not None and (named or port) not in self.names:
            self.send_error(400, f"expected the name of this machine, one of {', '.join(self.names)}")
            return
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        number = 0
        try:
            while (newest := self._next(number)) is not None:
                number, jpeg = newest
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            log.debug("client %s has gone", self.client_address[0])

    def _next(self, after: int) -> tuple[int, bytes] | None:
        """As the stream's, and None where the client goes while no frame comes, which only a look at it tells."""
        while not select.select([self.connection], [], [], 0)[0] or self.connection.recv(1, socket.MSG_PEEK):
            with suppress(TimeoutError):
                return self.stream.next_jpeg(after, LOOK_S)
        return None

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (http.server's name)
        """Into the log, not onto stderr."""
        log.debug(format, *args)
