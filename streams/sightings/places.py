"""Whose catalogues a frame is compared with, where more merchants have pictures than one frame can be compared with.

Where a merchant sells is nowhere written down. What its catalogue says of it is what its prices are in, and the language it
describes its products in: who takes the wearer's money is nearest, and among those who speaks the place's language. The rest
follows, longest known first, so that answers do not flicker.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from babel.languages import get_official_languages
from babel.numbers import get_territory_currencies

from schemas.ids import MerchantId
from streams.sightings.catalogues import Snapshot

AT_MOST = 32
PICTURES_AT_MOST = 400
"""Comparing a frame with one takes 2 to 3 ms of a core, and there is a second."""
LARGE = 200
"""Pictures. Of a larger catalogue a first stage chooses which are compared (infra/triton/vision/match.py), however many."""


@dataclass(frozen=True)
class Chosen:
    """`left_out` have pictures, too."""

    snapshots: tuple[Snapshot, ...]
    left_out: frozenset[MerchantId] = frozenset()


def nearest(
    current: Mapping[MerchantId, Snapshot], region: str | None, at_most: int = AT_MOST, pictures_at_most: int = PICTURES_AT_MOST
) -> Chosen:
    """Of the snapshots with pictures. `region`: where the glasses are, ISO 3166. One that is too large beside nearer ones is left
    out, and smaller ones after it are not."""
    with_pictures = [snapshot for snapshot in current.values() if snapshot.name]
    if len(with_pictures) <= at_most and sum(map(_cost, with_pictures)) <= pictures_at_most:
        return Chosen(tuple(with_pictures))
    currencies, languages = _currencies(region), _languages(region)

    def distance(snapshot: Snapshot) -> tuple[bool, bool, MerchantId]:
        market = snapshot.market
        return market.currencies.isdisjoint(currencies), market.languages.isdisjoint(languages), snapshot.merchant_id

    chosen: list[Snapshot] = []
    left = pictures_at_most
    for snapshot in sorted(with_pictures, key=distance):
        if len(chosen) < at_most and _cost(snapshot) <= left:
            chosen.append(snapshot)
            left -= _cost(snapshot)
    taken = {snapshot.merchant_id for snapshot in chosen}
    return Chosen(tuple(chosen), frozenset(one.merchant_id for one in with_pictures if one.merchant_id not in taken))


def _cost(snapshot: Snapshot) -> int:
    return min(snapshot.pictures, LARGE)


@cache
def _currencies(region: str | None) -> frozenset[str]:
    return frozenset(get_territory_currencies(region) if region else ())


@cache
def _languages(region: str | None) -> frozenset[str]:
    return frozenset(get_official_languages(region, de_facto=True) if region else ())
