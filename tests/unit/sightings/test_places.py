"""Whose catalogues a frame is compared with where there are too many."""

import logging

import pytest

from schemas.ids import MerchantId
from schemas.recognition import Intent
from streams.core.telemetry import metrics
from streams.sightings import places
from streams.sightings.catalogues import Market, Snapshot
from streams.sightings.recogniser import NoCatalogues, Recogniser
from streams.sightings.service import Frame
from tests.unit.sightings.test_recogniser import StandIn

MARKETS = {
    "SE": Market(frozenset({"SEK"}), frozenset({"sv"})),
    "FR": Market(frozenset({"EUR"}), frozenset({"fr"})),
    "DE": Market(frozenset({"EUR"}), frozenset({"de"})),
    "AT": Market(frozenset({"EUR", "CHF"}), frozenset({"de", "en"})),
    "everywhere": Market(),
}


def shelves(*kinds: str) -> dict[MerchantId, Snapshot]:
    """A merchant for each, in the order in which they came; with pictures."""
    merchants = sorted(MerchantId.new() for _ in kinds)
    return {
        merchant: Snapshot(merchant, 1, name=f"{kind} {number}", market=MARKETS[kind])
        for number, (merchant, kind) in enumerate(zip(merchants, kinds, strict=True))
    }


FORTY = shelves(*["SE", "FR", "everywhere", "DE", "AT"] * 8)


def kinds(chosen: places.Chosen) -> list[str]:
    return [str(snapshot.name).split()[0] for snapshot in chosen.snapshots]


def test_all_are_looked_at_where_they_are_not_too_many() -> None:
    few = dict(list(FORTY.items())[:32])
    without_pictures = {MerchantId.new(): Snapshot(MerchantId.new(), 1)}
    assert places.nearest({**few, **without_pictures}, "DE") == places.Chosen(tuple(few.values()))


def test_who_takes_the_places_money_comes_first_and_of_those_who_speaks_its_language() -> None:
    german = places.nearest(FORTY, "DE", 20)
    assert set(kinds(german)[:16]) == {"DE", "AT"} and kinds(german)[16:] == ["FR"] * 4
    assert kinds(places.nearest(FORTY, "SE", 8)) == ["SE"] * 8
    assert kinds(places.nearest(FORTY, "CH", 8)) == ["AT"] * 8
    assert kinds(places.nearest(FORTY, "FR", 24))[:8] == ["FR"] * 8


def test_no_more_pictures_than_there_is_time_for() -> None:
    sizes = [300, 10_000, 150, 90]
    shelf = {
        merchant: Snapshot(merchant, 1, name=f"{size}", pictures=size)
        for merchant, size in zip(sorted(MerchantId.new() for _ in sizes), sizes, strict=True)
    }
    assert [one.pictures for one in places.nearest(shelf, "DE").snapshots] == [300, 10_000], "of a large one few are compared"
    assert [one.pictures for one in places.nearest(shelf, "DE", pictures_at_most=300).snapshots] == [300, 90]
    assert len(places.nearest(shelf, "DE", pictures_at_most=1_000).left_out) == 0


@pytest.mark.parametrize("region", ["DE", "SE", "JP", "XX", None])
def test_the_choice_is_the_same_each_time_and_says_who_is_left_out(region: str | None) -> None:
    chosen = places.nearest(FORTY, region)
    assert chosen == places.nearest(dict(reversed(FORTY.items())), region)
    assert len(chosen.snapshots) == 32 and len(chosen.left_out) == 8
    assert {snapshot.merchant_id for snapshot in chosen.snapshots} | chosen.left_out == FORTY.keys()


@pytest.mark.parametrize("region", ["JP", None])
def test_where_nobody_is_near_who_is_known_longest_is_looked_at(region: str | None) -> None:
    assert list(places.nearest(FORTY, region).snapshots) == list(FORTY.values())[:32]


class Street(NoCatalogues):
    current = FORTY


async def test_who_is_left_out_is_counted_for_each_frame_and_logged_once_for_each_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[tuple[str, int]] = []
    monkeypatch.setattr(metrics, "count", lambda name, amount=1, **_: counted.append((name, amount)))
    models = StandIn()
    recogniser = Recogniser(models, Street())  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        for region in ("SE", "SE", "DE", "SE"):
            await recogniser.look(b"a frame", Frame("s", "0" * 64, Intent.IDENTIFY), 1.0, region=region)
    assert counted == [("augenblick.catalogues.left_out", 8)] * 4
    assert [record.getMessage() for record in caplog.records] == [
        f"8 catalogues with pictures are not looked at in {region}: 32 are the most" for region in ("SE", "DE")
    ]
    assert len(models.compared) == 32 and [name.split()[0] for name in models.compared[:8]] == ["SE"] * 8
