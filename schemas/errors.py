"""Errors, grouped by what the caller does about them, and the problems an edge answers with.

    AugenblickError
    ├── Retryable        try again later: nothing happened
    ├── Rejected         do not try again: the request is wrong, and `problem` says how
    ├── ActionRequired   a person must act first
    ├── OutcomeUnknown   it may have happened: ask, never repeat blindly
    └── Misconfigured    an operator must change a setting

A `Problem` is RFC 9457 problem details. `PROBLEMS` is the closed catalogue of codes; `docs/errors.md` is made from it.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class AugenblickError(Exception):
    """Base of every error that is raised on purpose. The message is fit for a user: no secrets, no stack."""


class Retryable(AugenblickError):
    """Nothing happened; the same call may succeed later. `retry_after_s` is the other side's wish, if it had one."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ActionRequired(AugenblickError):
    """A person has to act before this can go on; `url` is where, if there is such a place."""

    def __init__(self, message: str, *, url: str | None = None) -> None:
        super().__init__(message)
        self.url = url


class OutcomeUnknown(AugenblickError):
    """The call may have had its effect. Only asking can tell; repeating it could do it twice."""


class Misconfigured(AugenblickError):
    """An operator must change a setting. The message names the setting and how to set it."""


@dataclass(frozen=True)
class ProblemType:
    """One entry of the catalogue: HTTP status, title (the same every time), and what the caller can do about it."""

    status: int
    title: str
    remedy: str


PROBLEMS: dict[str, ProblemType] = {
    # Who is asking.
    "credentials-missing": ProblemType(401, "Credentials are missing", "Send an Authorization header with a bearer token."),
    "credentials-invalid": ProblemType(
        401, "Credentials are not valid", "Check the key, the audience and the clock; a device's token lives 60 seconds."
    ),
    "device-unknown": ProblemType(401, "The device is not known", "Pair the device first: `augenblick device add`."),
    "device-revoked": ProblemType(403, "The device was revoked", "Pair the device again with a new key."),
    "device-not-yours": ProblemType(403, "The device is not one of yours", "Send only events of your own devices."),
    # What was sent.
    "message-malformed": ProblemType(400, "The message cannot be read", "Send a CloudEvent as described in the makers' guide."),
    "message-unexpected": ProblemType(
        400, "The message does not fit here", "A frame follows its head, and only then; heads are text, frames binary."
    ),
    "event-type-unknown": ProblemType(400, "The event type is not one that devices send", "See the event catalogue."),
    "event-invalid": ProblemType(422, "The event's data does not fit its schema", "See `errors` for each field."),
    "event-in-future": ProblemType(422, "The event lies in the future", "Set the device's clock: up to 5 s ahead is tolerated."),
    "event-too-old": ProblemType(422, "The event is too old", "Send events as they happen; see the deadline in the guide."),
    "frame-too-large": ProblemType(413, "The frame is too large", "Send at most 2 MB; 640×480 to 1280×960 is plenty."),
    "frame-not-jpeg": ProblemType(415, "The frame is not a JPEG", "Encode the frame as a baseline or progressive JPEG."),
    "frame-truncated": ProblemType(422, "The frame is incomplete", "Send the whole JPEG, to its end marker."),
    "frame-dimensions": ProblemType(422, "The frame has too many pixels", "Send at most 12 megapixels."),
    "frame-length-differs": ProblemType(422, "The frame is not as long as its head says", "Set `bytes` to the frame's length."),
    # What can be done.
    "offer-unknown": ProblemType(404, "The offer is not known", "Look again: an offer belongs to the device it was shown on."),
    "offer-expired": ProblemType(410, "The offer has expired", "Look again for a fresh price."),
    "proposal-unknown": ProblemType(404, "The proposal is not known", "Answer only proposals made to this device."),
    "proposal-closed": ProblemType(409, "The proposal is no longer open", "Ask to pay again; nothing was charged for this one."),
    "proposal-expired": ProblemType(410, "The proposal has expired", "Ask to pay again."),
    "approval-invalid": ProblemType(
        403, "The approval does not prove the wearer's yes", "Sign the proposal's digest and nonce with the device's key."
    ),
    "approval-expired": ProblemType(403, "The approval has expired", "Ask the wearer again."),
    "not-worn": ProblemType(409, "The glasses are not being worn", "Put the glasses on, and report it with `wear.changed`."),
    "payer-missing": ProblemType(409, "No means of payment is set up for this device", "Add one for the device first."),
    "limit-exceeded": ProblemType(403, "The amount is above a limit", "Pay less at a time, or ask whoever set the limit."),
    "intent-stale": ProblemType(409, "The wish to pay is too old", "Ask the wearer again; nothing was charged."),
    "payee-code-unknown": ProblemType(404, "The payee's code is not known", "Look at the code again, in two frames."),
    "payee-code-expired": ProblemType(410, "The payee's code was seen too long ago", "Look at the code again."),
    "amount-missing": ProblemType(422, "The amount is missing", "This code names no amount: say how much, in its currency."),
    "amount-not-free": ProblemType(422, "The amount is not the wearer's to choose", "The code names the amount: leave it out."),
    "merchant-not-payable": ProblemType(
        409, "The merchant cannot be paid this way", "Pay with a means of payment, and in a currency, that the merchant takes."
    ),
    "payment-busy": ProblemType(409, "Another command on this payment is under way", "Wait until it has ended, then ask again."),
    "payment-frozen": ProblemType(409, "The payment is frozen", "An operator has to look at it: `augenblick payments unknown`."),
    "payment-state": ProblemType(409, "The payment's state does not allow this", "See the payment's `state`."),
    "amount-too-large": ProblemType(422, "The amount is more than there is", "See what was captured and refunded so far."),
    "key-proof-invalid": ProblemType(
        403, "The key's proof does not hold", "Sign the proof with the new key, and with the old one."
    ),
    "capability-not-offered": ProblemType(501, "The connected system does not offer this", "See the connector's capabilities."),
    # The merchants' API.
    "not-found": ProblemType(404, "There is no such thing", "Check the address and the id."),
    "method-not-allowed": ProblemType(405, "The method is not allowed here", "See `Allow` and the API's description."),
    "idempotency-key-missing": ProblemType(400, "The Idempotency-Key is missing", "Send a new, unguessable key with every POST."),
    "idempotency-key-in-use": ProblemType(409, "A request with this key is under way", "Wait for its answer, then ask again."),
    "idempotency-key-reused": ProblemType(422, "The key was used for another request", "Use a new key for another request."),
    "request-invalid": ProblemType(422, "The request does not fit its schema", "See `errors` for each field."),
    "too-large": ProblemType(413, "The request is too large", "Send less at a time."),
    "endpoint-address-refused": ProblemType(
        422, "The webhook address is refused", "Use a public https address; private and local ones are refused."
    ),
    # Us.
    "overloaded": ProblemType(503, "Too much at once", "Try again after `Retry-After` seconds."),
    "unavailable": ProblemType(503, "A part we need is not available", "Try again shortly; nothing was lost that was accepted."),
    "internal": ProblemType(500, "Something went wrong on our side", "Quote `instance` when you tell us."),
}

PROBLEM_TYPE_BASE = "https://augenblick.example/problems/"


class FieldError(BaseModel):
    """One field that does not fit: where (`/data/quantity`), and why. The offending value is not repeated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pointer: str
    detail: str


class Problem(BaseModel):
    """Problem details (RFC 9457). `type` ends in the code; `instance` is the journey, event or request it is about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    code: str
    title: str
    status: int
    detail: str
    remedy: str
    instance: str | None = None
    errors: tuple[FieldError, ...] = Field(default=())

    @classmethod
    def of(cls, code: str, detail: str, *, instance: str | None = None, errors: tuple[FieldError, ...] = ()) -> "Problem":
        entry = PROBLEMS[code]
        return cls(
            type=PROBLEM_TYPE_BASE + code,
            code=code,
            title=entry.title,
            status=entry.status,
            detail=detail,
            remedy=entry.remedy,
            instance=instance,
            errors=errors,
        )

    def body(self) -> dict[str, Any]:
        """For `application/problem+json`: without what is empty."""
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


class Rejected(AugenblickError):
    """The request is wrong and will stay wrong; `problem` is what its sender is told."""

    def __init__(self, code: str, detail: str, *, instance: str | None = None, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(detail)
        self.problem = Problem.of(code, detail, instance=instance, errors=errors)


def field_errors(errors: list[Any], *, at: str = "") -> tuple[FieldError, ...]:
    """From pydantic's `ValidationError.errors()`; never with the input's value, which may be anybody's secret."""
    return tuple(
        FieldError(pointer=at + "".join(f"/{part}" for part in error["loc"]), detail=error["msg"]) for error in errors[:20]
    )
