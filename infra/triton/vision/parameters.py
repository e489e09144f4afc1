"""What the matcher is set to: data, in matcher.json beside this file.

`matcher` names the code that extracts features, and everything here that it uses. Whoever changes one of these gives it another
name: what was extracted one way is not compared with what was extracted another way. The weights may change without it: they
have a name of their own, which is made of them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Parameters:
    """`catalogue_side` and `frame_side` are pixels along the longer side: a catalogue picture's content always becomes as large,
    a frame is made smaller to it and never larger. `contrast` is SIFT's threshold. `colour_side` is that of the small Lab
    picture. `weights` and `intercept` make a score of a candidate's evidence: fitted by benchmarks/match_weights.py."""

    matcher: str
    catalogue_side: int
    catalogue_points: int
    frame_side: int
    frame_points: int
    contrast: float
    colour_side: int
    weights: Mapping[str, float]
    intercept: float

    @property
    def scorer(self) -> str:
        """Whose scores these are: the matcher's by these weights, as `sift-1+3fa2c1`. A calibration holds for one scorer only."""
        weighing = json.dumps({"intercept": self.intercept, "weights": dict(self.weights)}, sort_keys=True)
        return f"{self.matcher}+{hashlib.sha256(weighing.encode()).hexdigest()[:6]}"


PARAMETERS = Parameters(**json.loads((Path(__file__).parent / "matcher.json").read_text()))
