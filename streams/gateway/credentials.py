"""Who is at the door, and whose key it is. The default answer is no."""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from joserfc import jwt
from joserfc.errors import JoseError
from pydantic import ValidationError

from schemas.errors import Rejected
from schemas.gateway import KEY_CHANGE_PROOF, PAIRING_PROOF, KeyChangeClaims, PairingClaims
from schemas.ids import DeviceId
from streams.core.database import Database
from streams.core.device_keys import ALGORITHMS, signed_payload, verification_key
from streams.gateway import store
from streams.gateway.store import PairedDevice

_LIVES_S = 60
_SKEW_S = 5
_PROOF_LIVES_S = 5 * 60

Claims = TypeVar("Claims", PairingClaims, KeyChangeClaims)


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


# A key proves itself.


def check_pairing(proof: str, maker_id: str, public_key: bytes, now: datetime) -> None:
    """Whether the one who pairs this key has its private half, and means this maker. Raises Rejected("key-proof-invalid")."""
    claims = _proof(proof, public_key, PAIRING_PROOF, PairingClaims, now)
    if claims.maker_id != maker_id:
        raise _disproved("it is for another maker")
    if base64.b64decode(claims.public_key) != public_key:
        raise _disproved("it is for another key")


def check_key_change(proof_old: str, proof_new: str, device: PairedDevice, new_key: bytes, now: datetime) -> datetime:
    """Whether the device's present key and the new one both want the change. Raises Rejected("key-proof-invalid").

    Returns when the key counts as changed: later than both proofs were made, by the device's clock. What was made before the last
    change does not count, so that no proof counts twice, whoever plays it again and whichever key has come back.
    """
    made = [
        _check_key_change(proof, key, device, new_key, now)
        for proof, key in ((proof_old, device.public_key), (proof_new, new_key))
    ]
    return max(now, *(at + timedelta(seconds=1) for at in made))


def _check_key_change(proof: str, key: bytes, device: PairedDevice, new_key: bytes, now: datetime) -> datetime:
    claims = _proof(proof, key, KEY_CHANGE_PROOF, KeyChangeClaims, now)
    if claims.device_id != device.id:
        raise _disproved("it is for another device")
    if base64.b64decode(claims.public_key) != new_key:
        raise _disproved("it is for another key")
    made = datetime.fromtimestamp(claims.iat, UTC)
    if device.key_changed_at is not None and made < device.key_changed_at:
        raise _disproved("it was made before the key last changed")
    return made


def _proof(proof: str, key: bytes, type: str, model: type[Claims], now: datetime) -> Claims:
    try:
        claims = model.model_validate_json(signed_payload(proof, key, {"typ": type}))
    except ValidationError as error:
        raise _disproved("its claims do not fit the schema") from error
    except ValueError as error:
        raise _disproved(str(error)) from error
    issued, expires = datetime.fromtimestamp(claims.iat, UTC), datetime.fromtimestamp(claims.exp, UTC)
    if issued > now + timedelta(seconds=_SKEW_S) or expires <= now or claims.exp - claims.iat > _PROOF_LIVES_S:
        raise _disproved(f"it is not valid now; it may live {_PROOF_LIVES_S} s")
    return claims


def _disproved(why: str) -> Rejected:
    return Rejected("key-proof-invalid", f"the proof does not hold: {why}")
