"""Who is at the door. The default answer is no."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError

from schemas.errors import Rejected
from schemas.ids import DeviceId
from streams.core.database import Database
from streams.core.device_keys import ALGORITHMS, verification_key
from streams.gateway import store
from streams.gateway.store import PairedDevice

_LIVES_S = 60
_SKEW_S = 5


def bearer(authorization: str | None) -> str:
    """The token of an Authorization header. Raises Rejected("credentials-missing")."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Rejected("credentials-missing", "an Authorization header with a bearer token is needed")
    return token.strip()


def token_hash(token: str) -> bytes:
    """What is stored of a token. Tokens are 256 random bits, so a plain digest is enough."""
    return hashlib.sha256(token.encode()).digest()


async def device(database: Database, authorization: str | None, audience: str) -> PairedDevice:
    """The device whose key signed the token: a JWT with `sub` the device, `aud` the gateway, living at most 60 s."""
    token = bearer(authorization)
    async with database.transaction() as connection:
        found = await store.find_device(connection, _claimed_device(token))
    if found is None:
        raise Rejected("device-unknown", "no device is paired under this id")
    if found.revoked:
        raise Rejected("device-revoked", "this device was revoked", instance=found.id)
    _verify(token, found, audience)
    return found


async def maker(database: Database, authorization: str | None) -> str:
    """The id of the maker whose cloud this is."""
    async with database.transaction() as connection:
        found = await store.find_maker(connection, token_hash(bearer(authorization)))
    if found is None:
        raise Rejected("credentials-invalid", "the token is not one of a maker")
    return found


def _claimed_device(token: str) -> DeviceId:
    """Who the token says it is from, unverified: only for finding the key it must then be verified with."""

    try:
        part = token.split(".")[1]
        return DeviceId(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["sub"])
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Rejected("credentials-invalid", "the token is not a JWT of a device") from error


def _verify(token: str, found: PairedDevice, audience: str) -> None:
    key = verification_key(found.public_key)
    now = int(datetime.now(UTC).timestamp())
    try:
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=ALGORITHMS).claims
    except (JoseError, ValueError, TypeError) as error:
        raise Rejected("credentials-invalid", "the token is not signed by the device's key") from error
    issued, expires = claims.get("iat"), claims.get("exp")
    if claims.get("sub") != found.id or claims.get("aud") != audience:
        raise Rejected("credentials-invalid", f"the token's audience is not {audience}")
    if not isinstance(issued, int) or not isinstance(expires, int):
        raise Rejected("credentials-invalid", "the token has no iat and exp in seconds")
    if issued > now + _SKEW_S or expires <= now or expires - issued > _LIVES_S:
        raise Rejected("credentials-invalid", f"the token is not valid now; it may live {_LIVES_S} s")
