"""The roles: what one process of the platform can be. Each loads only what it needs."""

from collections.abc import Awaitable, Callable

from streams.core.bootstrap import Parts
from streams.core.topology import ROLES

Run = Callable[[Parts], Awaitable[None]]


def find(role: str) -> Run:
    """The coroutine function that runs the role until it is cancelled. Raises KeyError for a name that is none."""
    match role:
        case "gateway":
            from streams.gateway.agent import run
        case "sightings":
            from streams.sightings.agent import run
        case "offers":
            from streams.offers.agent import run
        case "intents":
            from streams.intents.agent import run
        case "payments":
            from streams.payments.agent import run
        case "janitor":
            from streams.payments.janitor import run
        case "webhooks":
            from streams.webhooks.agent import run
        case "dispatcher":
            from streams.webhooks.dispatcher import run
        case "console":
            from streams.console.agent import run
        case "relay":
            from streams.core.relay import run
        case _:
            raise KeyError(f"{role!r} is not a role; the roles are {', '.join(ROLES)}")
    return run
