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


@dataclass(frozen=True)
class Chosen:
    """`left_out` have pictures, too."""

    snapshots: tuple[Snapshot, ...]
    left_out: frozenset[MerchantId] = frozenset()


def nearest(current: Mapping[MerchantId, Snapshot], region: str | None, at_most: int = AT_MOST) -> Chosen:
    """Of the snapshots with pictures. `region`: where the glasses are, ISO 3166."""
    with_pictures = [snapshot for snapshot in current.values() if snapshot.name]
    if len(with_pictures) <= at_most:
        return Chosen(tuple(with_pictures))
    currencies, languages = _currencies(region), _languages(region)

    def distance(snapshot: Snapshot) -> tuple[bool, bool, MerchantId]:
        market = snapshot.market
        return market.currencies.isdisjoint(currencies), market.languages.isdisjoint(languages), snapshot.merchant_id

    ordered = sorted(with_pictures, key=distance)
    return Chosen(tuple(ordered[:at_most]), frozenset(snapshot.merchant_id for snapshot in ordered[at_most:]))


@cache
def _currencies(region: str | None) -> frozenset[str]:
    return frozenset(get_territory_currencies(region) if region else ())


@cache
def _languages(region: str | None) -> frozenset[str]:
    return frozenset(get_official_languages(region, de_facto=True) if region else ())
