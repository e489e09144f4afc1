"""When a picture is acted upon, and when it is asked about. The numbers are data (thresholds.json, or a merchant's own
calibration), with what they promise and what that was measured on."""

import math
from functools import cache
from importlib.resources import files

from pydantic import Field

from schemas.recognition import Confidence, Shape

WEIGHTS = "+"
"""Between what extracts features and the name of the weights that make scores of them: features are kept for any weights."""


class Calibration(Shape):
    """From a match to how probably it is right: a logistic function of its `score` and of its `margin`, which is the score less
    that of the best other product (of `no_rival`, where there is no other). `offsets` are added for single products, by
    `product_id`: for those that are mistaken more often, or less, than their scores say."""

    intercept: float
    score: float
    margin: float
    no_rival: float = 0.0
    offsets: dict[str, float] = Field(default_factory=dict, max_length=100_000)

    def confidence(self, product_id: str, score: float, rival: float | None) -> float:
        """From 0 to 1, never more than 0.9999: a picture alone is no proof."""
        margin = score - (self.no_rival if rival is None else rival)
        log_odds = self.intercept + self.score * score + self.margin * margin + self.offsets.get(product_id, 0.0)
        if not math.isfinite(log_odds):
            return 0.0
        return min(1 / (1 + math.exp(-max(min(log_odds, 30.0), -30.0))), 0.9999)


class Promise(Shape):
    """What acting at these thresholds promised on the pictures it was measured on, which none of the numbers were fitted to.
    `precision_at_least` is the lower bound of a one-sided interval of `level`; `coverage` the part of the pictures that was
    acted upon; `unknown` the part of the pictures of nothing in the catalogue that was not."""

    precision: Confidence
    precision_at_least: Confidence
    level: Confidence = 0.95
    coverage: Confidence
    unknown: Confidence | None = None
    pictures: int = Field(ge=1)
    unknown_pictures: int = Field(default=0, ge=0)
    measured_on: str = Field(max_length=300)


class Views(Shape):
    """Of a frame that decides nothing: which hint it earns. Each number is the one beyond which a hint is given, in the units of
    `match`'s quality (see infra/triton/vision): mean brightness 0 to 255, share of blown-out pixels, sharpness, texture.
    `far`: the share of the frame that the product's outline covers; `few_inliers`: a product seen so weakly shows its other
    side."""

    dark: float
    blurred: float
    glare: float
    plain: float
    far: float
    few_inliers: int


class PriceTags(Shape):
    """A price that was read less surely than `least_confidence` is not told. What that promises, as parts of the `tags` that it
    was measured on: `exact` were told with the right price and currency, `wrong` with another; of the rest nothing was said."""

    least_confidence: Confidence
    exact: Confidence
    wrong: Confidence
    tags: int = Field(ge=1)
    measured_on: str = Field(max_length=300)


class Thresholds(Shape):
    """`matcher`: whose scores these are, as `sift-1+3fa2c1`: a matcher with its weights. Those of another, or by other weights,
    mean something else, and are never acted upon. A product is acted upon from `act` on, and asked about from `ask` on; below
    that it is unknown. `choice` is what another product needs to be one of the choices. `price_tag` is no catalogue's own: those
    that are shipped count."""

    format: int = Field(default=1, ge=1, le=1)
    matcher: str = Field(max_length=100)
    calibration: Calibration
    act: Confidence
    ask: Confidence
    choice: Confidence
    promise: Promise | None = None
    views: Views
    price_tag: PriceTags

    def may_act(self, matcher: str | None) -> bool:
        return matcher == self.matcher


@cache
def shipped() -> Thresholds:
    """Those of a catalogue that was not calibrated."""
    return Thresholds.model_validate_json(files("streams.sightings").joinpath("thresholds.json").read_bytes())
