"""Which changes of the wear state are believed: authority may end too early, never too late."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas.payments import WearChanged, WearState
from streams.intents.service import GATEWAY, Device, wear_counts

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DEVICE = Device(
    id="dev",
    public_key=bytes(32),
    locale="en",
    wear_state=WearState.DOFFED,
    revoked=False,
    payer_provider="stripe",
    wear_changed_at=NOW,
    link="newest",
)


@pytest.mark.parametrize(
    ("state", "link", "source", "seconds_later", "believed"),
    [
        (WearState.WORN, None, "/devices/dev", 1, True),
        (WearState.WORN, None, "/devices/dev", -30, False),  # said before the glasses were taken off
        (WearState.DOFFED, None, "/devices/dev", -30, True),
        (WearState.LINK_LOST, "newest", GATEWAY, 0, True),
        (WearState.LINK_LOST, "older", GATEWAY, 0, False),  # the glasses have long been back
        (WearState.LINK_LOST, "older", "/devices/dev", 0, True),  # a device may always give up its own authority
    ],
)
def test_wear_counts(state: WearState, link: str | None, source: str, seconds_later: int, believed: bool) -> None:
    change = WearChanged(state=state, link=link)
    assert wear_counts(change, DEVICE, source, NOW + timedelta(seconds=seconds_later)) is believed
