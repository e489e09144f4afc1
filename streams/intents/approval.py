"""Is this really the wearer's yes, to exactly this? The default answer is no."""

import hmac
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from schemas.errors import Rejected
from schemas.payments import ApprovalClaims, ProposalTerms
from streams.core.device_keys import signed_payload

TYPE = "augenblick-approval+jws"
_CLOCK_SKEW = timedelta(seconds=5)
_LIVES = timedelta(seconds=60)


def verify(
    approval: str, terms: ProposalTerms, digest: str, device_id: str, public_key: bytes, proposed_at: datetime, now: datetime
) -> ApprovalClaims:
    """The claims, if all of it holds. Raises Rejected("approval-invalid") or Rejected("approval-expired")."""
    claims = _signed_claims(approval, device_id, public_key)
    if claims.proposal_id != terms.proposal_id:
        raise _invalid("it is for another proposal")
    if not hmac.compare_digest(claims.digest, digest):
        raise _invalid("it is for other terms than were proposed")
    if not hmac.compare_digest(claims.nonce.encode(), terms.nonce.encode()):
        raise _invalid("its nonce is not the proposal's")
    if claims.presence not in terms.presence:
        raise _invalid(f"{claims.presence} is not accepted here")
    signed_at, expires_at = datetime.fromtimestamp(claims.iat, UTC), datetime.fromtimestamp(claims.exp, UTC)
    if signed_at > now + _CLOCK_SKEW or signed_at < proposed_at - _CLOCK_SKEW:
        raise _invalid("it was not signed between the proposal and now, by the device's clock")
    if expires_at - signed_at > _LIVES:
        raise _invalid(f"it lives longer than {_LIVES.seconds} s")
    if expires_at <= now:
        raise Rejected("approval-expired", "the approval came after its own expiry", instance=terms.proposal_id)
    return claims


def _signed_claims(approval: str, device_id: str, public_key: bytes) -> ApprovalClaims:
    try:
        payload = signed_payload(approval, public_key, {"kid": device_id, "typ": TYPE})
    except ValueError as error:
        raise _invalid(str(error)) from error
    try:
        return ApprovalClaims.model_validate_json(payload)
    except ValidationError as error:
        raise _invalid("its claims do not fit the schema") from error


def _invalid(why: str) -> Rejected:
    return Rejected("approval-invalid", f"the approval does not count: {why}")
