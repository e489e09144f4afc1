"""Codes that ask to pay somebody: what several frames must agree on before anybody can be paid. Plain functions on plain values.

One frame proves little: a code can be misread, a sticker can lie over another, a screen can flicker. So a code counts when two
different frames, one after the other, show exactly the same payees' codes. A frame that shows another set begins anew with what
it shows; a frame without any such code says nothing either way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from babel.lists import format_list

from schemas.commerce import FoundPayee, PayeesFound
from schemas.digests import canonical_json, sha256_hex
from schemas.ids import MerchantId, PayeeCodeId, PayeeId
from schemas.recognition import PayeeCode, PayeesSeen, Unclear, UnclearReason
from streams.core import wording

FRAMES_NEEDED = 2
FRAMES_APART = timedelta(seconds=15)
"""Frames that are further apart may be of two places."""
GOOD_FOR = timedelta(seconds=120)
"""After it was last seen; whoever wants to pay later looks again."""

_FRAMES_KEPT = 8


@dataclass(frozen=True)
class SeenCode:
    """`frames` are the digests of the frames in which the code was seen in a row, oldest first."""

    id: PayeeCodeId
    digest: str
    code: PayeeCode
    frames: tuple[str, ...]
    last_seen_at: datetime

    @property
    def expires_at(self) -> datetime:
        return self.last_seen_at + GOOD_FOR

    @property
    def confirmed(self) -> bool:
        return len(self.frames) >= FRAMES_NEEDED


@dataclass(frozen=True)
class Payee:
    """As registered. `currency` is for codes that name none."""

    id: PayeeId
    merchant_id: MerchantId
    name: str
    currency: str


def code_digest(code: PayeeCode) -> str:
    return sha256_hex(canonical_json(code.model_dump(mode="json")))


def seen(
    known: Sequence[SeenCode], codes: Sequence[PayeeCode], frame: str, at: datetime, new_id: Callable[[str], PayeeCodeId]
) -> tuple[SeenCode, ...]:
    """The codes of this frame, as they stand with it. `known` are those that these glasses saw and that have not expired; they
    are changed by frames alone that were not counted before. `at` is when the frame was taken; `new_id` makes an id for a
    digest."""
    before = {code.digest: code for code in known}
    now = {code_digest(code): code for code in codes}
    if all(digest in before and frame in before[digest].frames for digest in now):
        return tuple(before[digest] for digest in now)
    agrees = _agrees(known, now, frame, at)
    return tuple(
        replace(before[digest], frames=(*before[digest].frames, frame)[-_FRAMES_KEPT:], last_seen_at=at)
        if agrees
        else SeenCode(before[digest].id if digest in before else new_id(digest), digest, code, (frame,), at)
        for digest, code in now.items()
    )


def _agrees(known: Sequence[SeenCode], now: Mapping[str, PayeeCode], frame: str, at: datetime) -> bool:
    """Whether the frame before this one showed the same codes."""
    if not known:
        return False
    latest = max(known, key=lambda code: code.last_seen_at)
    last_frame = latest.frames[-1]
    shown = {code.digest for code in known if code.frames[-1] == last_frame}
    return last_frame != frame and shown == set(now) and abs(at - latest.last_seen_at) <= FRAMES_APART


def answer(
    sighting: PayeesSeen, codes: Sequence[SeenCode], registered: Mapping[PayeeCodeId, Payee], locale: str
) -> PayeesFound | Unclear:
    """Only registered payees are named, by the registry: what a code calls itself is no proof of anything. One that is not
    registered beside one that is, is left out, for it cannot be paid."""
    if not all(code.confirmed for code in codes):
        return _unclear(sighting, UnclearReason.PAYEE_SEEN_ONCE, locale)
    found = tuple(_found(code, registered[code.id]) for code in codes if code.id in registered)
    if not found:
        return _unclear(sighting, UnclearReason.PAYEE_UNKNOWN, locale)
    return PayeesFound(sighting_id=sighting.sighting_id, payees=found, text=_sentence(found, locale))


def _found(code: SeenCode, payee: Payee) -> FoundPayee:
    return FoundPayee(
        payee_code_id=code.id,
        merchant_id=payee.merchant_id,
        name=payee.name,
        amount=code.code.amount,
        currency=code.code.currency or payee.currency,
        expires_at=code.expires_at,
    )


def _sentence(found: Sequence[FoundPayee], locale: str) -> str:
    if len(found) > 1:
        names = format_list(tuple(dict.fromkeys(payee.name for payee in found)), style="or", locale=wording.locale_of(locale))
        return wording.say("payees_found", locale, payees=names)
    [payee] = found
    if payee.amount is None:
        return wording.say("payee_found", locale, payee=payee.name, currency=payee.currency)
    return wording.say("payee_found_amount", locale, payee=payee.name, total=wording.money(payee.amount, locale))


def _unclear(sighting: PayeesSeen, reason: UnclearReason, locale: str) -> Unclear:
    return Unclear(
        sighting_id=sighting.sighting_id,
        frame_digest=sighting.frame_digest,
        intent=sighting.intent,
        reason=reason,
        hint=wording.say(reason, locale),
    )
