"""GET /v1/pictures/{sha256}: a catalogue's picture, small, for the choices that glasses show. By a device's token or its maker's.

A picture's address is the digest of what the merchant uploaded: it never changes, and may be kept for ever.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.security.utils import get_authorization_scheme_param

from schemas.errors import Rejected
from streams.catalogues import store
from streams.core.database import Database
from streams.gateway import credentials

PATH = "/v1/pictures"

_HEADERS = {
    "Cache-Control": "private, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
}
_Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the picture as its merchant gave it")]


class PicturesApi:
    def __init__(self, database: Database, audience: str) -> None:
        self._database = database
        self._audience = audience

    async def identify(self, authorization: str | None) -> None:
        """Raises Rejected where it is neither a device nor a maker. A device's token is a JWT: it has two dots, a maker's
        none."""
        _, token = get_authorization_scheme_param(authorization)
        if token.count(".") == 2:
            await credentials.device(self._database, authorization, self._audience)
        else:
            await credentials.maker(self._database, authorization)

    def router(self) -> APIRouter:
        routes = APIRouter(prefix=PATH, tags=["glasses"])

        @routes.get(
            "/{sha256}",
            response_class=Response,
            responses={200: {"content": {"image/jpeg": {}}, "description": "A JPEG of at most 256 pixels a side"}},
        )
        async def picture(sha256: _Digest, request: Request) -> Response:
            """A catalogue's picture, as a choice shows it."""
            await self.identify(request.headers.get("authorization"))
            tag = f'"{sha256}"'
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers={**_HEADERS, "ETag": tag})
            async with self._database.transaction() as connection:
                thumbnail = await store.find_thumbnail(connection, sha256)
            if thumbnail is None:
                raise Rejected("not-found", "no catalogue has this picture")
            return Response(thumbnail, media_type="image/jpeg", headers={**_HEADERS, "ETag": tag})

        return routes
