"""The live page's three addresses: the page, its figures, and the newest frame before and after."""

import asyncio
import hmac
from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Query
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from derain.runtime.live.view import LiveView

LOOK_S = 0.01
PATIENCE_S = 5.0

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def create_app(view: LiveView, token: str | None, names: Sequence[str]) -> FastAPI:
    """The application. With a token, each request needs it: `Authorization: Bearer TOKEN`, or `?token=TOKEN`.

    Without one it answers to `names` alone.
    """

    def check(
        token_given: Annotated[str, Query(alias="token")] = "", authorization: Annotated[str, Header()] = ""
    ) -> None:
        given = authorization.removeprefix("Bearer ") or token_given
        if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
            raise HTTPException(401, "this page needs its token: open the address that `derain serve` showed", HEADERS)

    app = FastAPI(dependencies=[Depends(check)], docs_url=None, redoc_url=None, openapi_url=None)
    if token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
    page = files(__package__).joinpath("page.html").read_text("utf-8")

    @app.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers=HEADERS)

    @app.get("/state")
    async def state() -> JSONResponse:
        return JSONResponse(view.state(), headers=HEADERS)

    @app.get("/pair")
    async def pair(after: Annotated[int, Query(ge=0)] = 0) -> Response:
        """Wait for a frame newer than number `after`, then both its pictures in one answer: JPEG after JPEG."""
        end = asyncio.get_running_loop().time() + PATIENCE_S
        while view.number <= after:
            if view.closed or asyncio.get_running_loop().time() > end:
                return Response(status_code=204, headers=HEADERS)
            await asyncio.sleep(LOOK_S)
        newest = await asyncio.to_thread(view.pair)
        assert newest is not None
        facts = {
            "X-Number": str(newest.number),
            "X-Frame": str(newest.record.id),
            "X-Before-Bytes": str(len(newest.before)),
            "X-Why": newest.record.why or "",
        }
        return Response(newest.before + newest.after, headers=HEADERS | facts, media_type="application/octet-stream")

    return app
