"""The live page's server, on a thread beside the pipeline."""

import asyncio
import os
import secrets
import socket
import threading
import time
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from derain.runtime.address import is_local, local_names
from derain.runtime.live.app import create_app
from derain.runtime.live.view import LiveView

SHORTEST = 8
"""Characters of a token."""

PATIENCE_S = 5.0

FAREWELL_S = 0.5
"""For an answer that is being read when the page is closed: less than uvicorn's, which ends in tracebacks."""

MOST_CONNECTIONS = 64
"""Connections held at once. Each holds a file open, of which the stream beside needs some."""


class Connection(H11Protocol):
    """One of a bounded number; closed where no whole request came in time, at first or after an answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it if there is room."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()
        else:
            self.loop.call_later(PATIENCE_S, self._close_if_unasked, None)

    def data_received(self, data: bytes) -> None:
        """uvicorn waits in vain for the next request only until its first byte: the rest must come in time as well."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is before:
            self.loop.call_later(PATIENCE_S, self._close_if_unasked, before)

    def shutdown(self) -> None:
        """Go on with an answer for a moment: a browser that reads no more, as in a laptop put to sleep, is let go."""
        super().shutdown()
        self.loop.call_later(FAREWELL_S, self.transport.abort)

    def _close_if_unasked(self, before: RequestResponseCycle | None) -> None:
        """Where the newest request is still the one that was answered before."""
        if self.cycle is before and (before is None or before.response_complete):
            self.transport.close()


class LiveServer:
    """Serves a view while it is open, a context manager; `token` is None where it needs none.

    A host that others can reach needs a token: one is made where none is given. `address` is where the page is, without
    the token; port 0 takes a free one. Raises ValueError for a token too short to be one, OSError where it cannot
    listen.
    """

    def __init__(self, view: LiveView, host: str, port: int, token: str | None = None) -> None:
        if token is not None and len(token) < SHORTEST:
            raise ValueError(
                f"the token (--token or DERAIN_TOKEN) has {len(token)} characters, expected at least {SHORTEST}: give "
                "none, and one is made"
            )
        self.token = token or (None if is_local(host) else secrets.token_urlsafe(24))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            told = os.strerror(error.errno) if error.errno and error.errno > 0 else error
            raise OSError(f"{host}, port {port}: cannot listen there: {told}: give another --host or --port") from error
        self.port = int(self._socket.getsockname()[1])
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self.port}/"
        self._view = view
        self._server = uvicorn.Server(
            uvicorn.Config(
                create_app(view, self.token, local_names(host)),
                http=Connection,
                log_config=None,
                access_log=False,  # it would write the token of `?token=` down
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._run, name="derain-live", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        end = time.monotonic() + PATIENCE_S
        while not self._server.started and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.close()
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
