"""Recorded sessions of glasses, and their replay over the real WebSocket."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import Field

from infra.sandbox.glasses import Glasses, Message
from infra.sandbox.providers import Kind
from schemas.recognition import Intent, Shape


class Wearer(Shape):
    locale: str
    currency: str
    region: str


class Wear(Shape):
    """Put on, take off, fold. `expect`: the answer that must follow, if any."""

    do: Literal["wear"]
    state: Literal["worn", "doffed", "folded"]
    expect: Literal["proposal.closed"] | None = None


class Look(Shape):
    """A glance at one of infra/sandbox/pictures."""

    do: Literal["look"]
    picture: str
    intent: Intent = Field(strict=False)
    expect: Literal["offers.found", "look.again"]


class RequestPayment(Shape):
    do: Literal["request_payment"]
    quantity: int
    expect: Literal["payment.proposed", "intent.refused"]


class Approve(Shape):
    """The signed yes. `expect`: the payment's state, or the refusal."""

    do: Literal["approve"]
    presence: Literal["press", "voice", "nod"]
    expect: Literal["captured", "declined", "action_required", "intent.refused"]


class Confirm(Shape):
    """The payer does on the phone what the wallet asks for there."""

    do: Literal["confirm"]
    expect: Literal["captured"]


Step = Annotated[Wear | Look | RequestPayment | Approve | Confirm, Field(discriminator="do")]

Phone = Callable[[str], Awaitable[None]]
"""Confirms what waits for it in a journey."""


class Session(Shape):
    """`payer`: what the wearer's means of payment does when it is charged."""

    name: str
    title: str
    wearer: Wearer
    payer: Kind = "ok"
    steps: tuple[Step, ...]


class UnexpectedAnswer(AssertionError):
    """The platform did something else than the session's record says."""


@dataclass
class Replayed:
    """What came of a session: its journey, what the wearer was told, in order, and what was refused."""

    session: Session
    journey_id: str = ""
    told: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    too_late: int = 0
    ended: str = ""


_PATIENCE = 10  # frames

NAMES = ("price", "pay", "phone", "unclear", "doffed")


def load(name: str) -> Session:
    return Session.model_validate_json(files("infra.sandbox").joinpath(f"sessions/{name}.json").read_text(encoding="utf-8"))


def picture(name: str) -> bytes:
    return files("infra.sandbox").joinpath(f"pictures/{name}.jpg").read_bytes()


async def replay(session: Session, glasses: Glasses, phone: Phone) -> Replayed:
    """Step by step. Raises UnexpectedAnswer, or TimeoutError where nothing comes."""
    replayed = Replayed(session)
    looked: Message = {}
    proposed: Message = {}
    for step in session.steps:
        match step:
            case Wear():
                before = len(glasses.received)
                await glasses.wear(step.state)
                if step.expect:
                    _told(replayed, await glasses.expect(lambda m: m["type"] == "proposal.closed", after=before), step.expect)
            case Look():
                looked = await _look(glasses, step, replayed)
                replayed.journey_id = looked.get("journeyid", "")
                _told(replayed, looked, step.expect)
            case RequestPayment():
                proposed = await glasses.request_payment(looked, step.quantity)
                _told(replayed, proposed, step.expect)
            case Approve():
                _told(replayed, await _approve(glasses, proposed, step), step.expect)
            case Confirm():
                await phone(replayed.journey_id)
                _told(replayed, await glasses.payment(replayed.journey_id, step.expect), step.expect)
    return replayed


async def _look(glasses: Glasses, step: Look, replayed: Replayed) -> Message:
    """A wearer keeps looking: a frame that was answered too late is followed by another."""
    while True:
        message = await glasses.look(picture(step.picture), step.intent)
        if message["type"] != "gateway.dropped" or replayed.too_late == _PATIENCE:
            return message
        replayed.too_late += 1


async def _approve(glasses: Glasses, proposed: Message, step: Approve) -> Message:
    sent = await glasses.send_approval(proposed, step.presence)

    def ends(message: Message) -> bool:
        if message["type"] == "intent.refused":
            return bool(message.get("subject") == sent)
        return bool(message["type"] == "payment.updated" and message["journeyid"] == proposed["journeyid"])

    return await glasses.expect(ends, timeout_s=20)


def _told(replayed: Replayed, message: Message, expected: str) -> None:
    data = message.get("data", {})
    ended = data["state"] if message["type"] == "payment.updated" else message["type"]
    if ended != expected:
        raise UnexpectedAnswer(f"{replayed.session.name}: {expected} was expected, {ended} came: {message}")
    replayed.ended = ended
    match message["type"]:
        case "intent.refused":
            replayed.refused.append(f"{data['code']}: {data['detail']}")
        case "look.again":
            replayed.told.append(data["hint"])
        case "payment.proposed":
            replayed.told.append(data["terms"]["text"])
        case _:
            replayed.told.append(data["text"])
