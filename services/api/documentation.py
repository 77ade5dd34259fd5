"""/openapi.json and /docs: the API's description, and a page that shows it without a network."""

import mimetypes
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from services.api.context import answer_text
from shared.json_text import to_json

DIRECTORY: Final = Path(__file__).parent / "docs"
FILES: Final = {
    "/docs": DIRECTORY / "index.html",
    "/docs/docs.js": DIRECTORY / "docs.js",
    "/docs/docs.css": DIRECTORY / "docs.css",
    **{
        f"/docs/{name}": DIRECTORY / "swagger-ui" / name
        for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
    },
}
SPEC: Final = "/openapi.json"
PATHS: Final = (SPEC, *FILES)
_HEADERS: Final = {
    # Nothing from elsewhere; Swagger UI sets styles and images from its own code.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(spec: dict[str, Any]) -> Sequence[tuple[str, Handler]]:
    """The paths of the description and its page, and who answers them."""
    text = to_json(spec)

    async def show_spec(_: web.Request) -> web.StreamResponse:
        return answer_text(text)

    return [(SPEC, show_spec), *((path, _shows(file)) for path, file in FILES.items())]


def _shows(file: Path) -> Handler:
    content_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"

    async def show(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(file, headers=_HEADERS | {"Content-Type": content_type})

    return show
