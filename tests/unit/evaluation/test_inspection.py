"""What commands make of an answer: the line that is printed, the outcome that is counted; and manifests."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.errors import Misconfigured
from schemas.ids import EventId, MerchantId
from schemas.money import Money
from schemas.recognition import Candidate, Code, Intent, PriceTag
from streams.evaluation.inspection import (
    Inspected,
    candidates_of,
    decision_of,
    explained,
    line_of,
    outcome_of,
    sentences_of,
    unseen,
)
from streams.evaluation.manifests import Labelled, by_product, read_manifest
from streams.sightings import service, thresholds
from streams.sightings.recogniser import Look
from streams.sightings.service import Frame, Match, Seen
from streams.sightings.triton import Matched, Matches, Quality

MERCHANT = MerchantId.new()
QUALITY = Quality(sharpness=200, brightness=120, glare=0, texture=50)
CORNERS = ((20.0, 20.0), (80.0, 20.0), (80.0, 60.0), (20.0, 60.0))
MILK, OATS = "04006381333931", "09520000010010"
LIMITS = thresholds.shipped().model_copy(
    update={
        "matcher": "m",
        "calibration": thresholds.Calibration(intercept=-5, score=0.1, margin=0.2),
        "act": 0.9,
        "ask": 0.3,
        "choice": 0.0001,
    }
)


def match(product: str, score: float, gtin: str | None = None) -> Match:
    return Match(MERCHANT, product, f"Title of {product}", "en", 3, score, LIMITS, gtin, inliers=9, outline=CORNERS)


def known(product: str, gtin: str) -> Candidate:
    return Candidate(
        merchant_id=MERCHANT,
        product_id=product,
        gtin=gtin,
        title=f"Title of {product}",
        language="en",
        confidence=1.0,
        picture="0" * 64,
    )


def looked(*matches: Match, codes: tuple[Code, ...] = (), known: tuple[Candidate, ...] = (), tag: PriceTag | None = None) -> Look:
    seen = Seen(
        codes=codes,
        price_tag=tag,
        matches=matches,
        matcher="m",
        quality=QUALITY,
        size=(100, 100),
        known=known,
        models=("codes:1", "match:1"),
    )
    return Look(service.decide(Frame(EventId.new(), "0" * 64, Intent.PRICE), seen), seen, {"codes": 3.2, "match": 40.1})


def inspected(look: Look) -> Inspected:
    return Inspected(Path("shelf.jpg"), b"a frame", look, ms=45.5)


def code(gtin: str) -> Code:
    return Code(text=gtin[1:], format="EAN13", corners=CORNERS, gtin=gtin)


def test_a_picture_that_is_acted_on() -> None:
    tag = PriceTag(price=Money.of(149, "EUR"), confidence=0.9, corners=CORNERS)
    look = looked(match("milk", 60), match("oats", 12, OATS), tag=tag)
    line = line_of(inspected(look))
    assert line["decision"] == "act" and line["confidence"] > 0.9 and line["reason"] is None
    assert line["product"]["product_id"] == "milk" and line["product"]["evidence"] == "picture"
    assert [one["product_id"] for one in line["alternatives"]] == ["oats"]
    assert line["price"]["price"] == {"minor": 149, "currency": "EUR"}
    assert line["ms"] == {"codes": 3.2, "match": 40.1, "all": 45.5}
    assert "a frame" not in json.dumps(line)


def test_a_picture_that_is_asked_about() -> None:
    line = line_of(inspected(looked(match("milk", 45), match("oats", 40, OATS), match("rye", 2))))
    assert (line["decision"], line["product"], line["confidence"], line["reason"]) == ("ask", None, None, "close")
    assert [one["product_id"] for one in line["alternatives"]] == ["milk", "oats", "rye"]
    assert line["choices"] == [{key: one[key] for key in one if key != "confidence"} for one in line["alternatives"]][:2]


def test_only_what_the_wearer_is_asked_about_is_called_a_choice() -> None:
    look = looked(match("milk", 45), match("oats", 40, OATS), match("rye", 2))
    said = sentences_of(inspected(look))
    assert [line for line in said if line.startswith("choice: ")] == [
        "choice: Title of milk (milk)",
        f"choice: Title of oats ({OATS})",
    ]
    assert sum(line.startswith("like: Title of ") for line in said) == 3
    alone = inspected(looked(match("milk", 20)))
    assert line_of(alone)["reason"] == "unsure" and [one["title"] for one in line_of(alone)["choices"]] == ["Title of milk"]


def test_a_picture_that_shows_nothing_known() -> None:
    line = line_of(inspected(looked(match("milk", 5))))
    assert (line["decision"], line["product"]) == ("look_again", None)
    assert line["reason"] and line["alternatives"][0]["confidence"] < 0.1


def test_a_code_of_a_product_that_no_catalogue_has() -> None:
    look = looked(match("oats", 5, OATS), codes=(code(MILK),))
    line = line_of(inspected(look))
    assert line["product"] == {"gtin": MILK, "evidence": "code"} and line["confidence"] == 1
    assert [one["product_id"] for one in line["alternatives"]] == ["oats"], "what the picture is like is told all the same"
    counted = outcome_of(Labelled(Path("shelf.jpg"), "oats"), inspected(look))
    assert counted.ranked == (f"GTIN {MILK}", "oats") and counted.decision == "act" and counted.is_error


def test_a_code_of_a_product_of_the_catalogue_names_it() -> None:
    look = looked(match("oats", 5, OATS), codes=(code(MILK),), known=(known("milk", MILK),))
    line = line_of(inspected(look))
    assert line["product"]["product_id"] == "milk" and line["product"]["evidence"] == "code"
    counted = outcome_of(Labelled(Path("shelf.jpg"), "milk"), inspected(look))
    assert counted.ranked == ("milk", "oats") and not counted.is_error and counted.confidence == 1


def test_code_and_picture_that_differ_are_both_choices() -> None:
    look = looked(match("oats", 70, OATS), codes=(code(MILK),), known=(known("milk", MILK),))
    assert decision_of(look) == "ask"
    assert [one.product_id for one in candidates_of(look)] == ["milk", "oats"]
    counted = outcome_of(Labelled(Path("x"), "oats"), inspected(look))
    assert counted.decision == "ask" and counted.choices == ("milk", "oats")


def test_what_is_ranked_counts_although_nothing_is_said() -> None:
    counted = outcome_of(Labelled(Path("x"), "milk"), inspected(looked(match("milk", 10), match("oats", 9))))
    assert counted.decision == "look_again" and counted.ranked == ("milk", "oats") and 0 < counted.confidence < 0.3
    assert outcome_of(Labelled(Path("x"), None), inspected(looked())).ranked == ()


def test_only_what_was_offered_counts_as_a_choice() -> None:
    look = looked(match("milk", 40), match("oats", 38), match("juice", 1))
    counted = outcome_of(Labelled(Path("x"), "juice"), inspected(look))
    assert counted.decision == "ask" and counted.choices == ("milk", "oats")
    assert counted.ranked == ("milk", "oats", "juice")


def test_what_a_model_did_not_see_is_not_measured() -> None:
    look = looked(match("milk", 30.0))
    assert unseen(inspected(look)) is None
    for missing in ({"late": ("match",)}, {"failed": ("match",)}):
        assert unseen(inspected(replace(look, seen=replace(look.seen, **missing)))) == "no answer of match"


def test_a_title_that_cannot_be_drawn_gives_way_to_the_products_own_name() -> None:
    matches = tuple(
        Matched(snapshot="s", product_id=product, score=score, inliers=9) for product, score in (("juice", 60.0), ("milk", 12.0))
    )
    look = replace(
        looked(replace(match("juice", 60), title="果汁"), match("milk", 12)),
        matches=Matches(matcher="m", width=100, height=100, quality=QUALITY, candidates=matches),
    )
    assert [shown for _, shown in explained(inspected(look)).matched] == ["juice", "Title of milk"]


def test_sentences_say_what_was_decided_and_why() -> None:
    said = sentences_of(inspected(looked(match("milk", 60), match("oats", 12))))
    assert said[0] == "decision: act" and said[1].startswith("product: Title of milk (milk), by picture, 0.9")
    assert said[2].startswith("like: Title of oats (oats), 0.0") and said[-1] == "codes 3.2 ms, match 40.1 ms, all 45.5 ms"
    assert sentences_of(Inspected(Path("x"), error="damaged")) == ["damaged"]


PRODUCTS = {"milk": MILK, "oats": None}


def manifest(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_manifest_is_separated_as_spreadsheets_do_it(tmp_path: Path, delimiter: str, end: str) -> None:
    lines = (
        ("\ufeffFile;Product;taken", 'a.jpg;milk;"Monday; early, wet"', "b, c.jpg;oats;")
        if delimiter == ";"
        else (f"\ufeffFile{delimiter} Product", f"a.jpg{delimiter}milk", f'"b, c.jpg"{delimiter}oats')
    )
    path = tmp_path / "manifest.csv"
    path.write_bytes(end.join(lines).encode())
    assert [(each.file.name, each.product) for each in read_manifest(path, PRODUCTS)] == [("a.jpg", "milk"), ("b, c.jpg", "oats")]


def test_a_manifest_that_is_no_utf_8_is_refused_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes("file,product\na.jpg,milk\nmärz.jpg,milk\n".encode("latin-1"))
    with pytest.raises(Misconfigured, match=r"Line 3 of .*manifest\.csv is not UTF-8: save the file as "):
        read_manifest(path, PRODUCTS)


def test_a_picture_is_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "photo.JPG"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(Misconfigured, match=r"is a picture\. What pictures show is said by a CSV file"):
        read_manifest(path, PRODUCTS)


def test_a_manifest_that_is_no_csv_is_refused_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"Line 2 of .* is not CSV: "):
        read_manifest(manifest(tmp_path, 'file,product\n"a"b,milk\n'), PRODUCTS)


def test_a_manifest_names_products_by_either_number(tmp_path: Path) -> None:
    lines = ("\ufeffsplit,file,product", "val,a.jpg,milk", "val,b.jpg,4006381333931", "val,c/d.jpg,oats", "val,e.jpg,")
    read = read_manifest(manifest(tmp_path, "\n".join(lines)), PRODUCTS)
    assert [(each.file.relative_to(tmp_path).as_posix(), each.product) for each in read] == [
        ("a.jpg", "milk"),
        ("b.jpg", "milk"),
        ("c/d.jpg", "oats"),
        ("e.jpg", None),
    ]
    assert {product: len(each) for product, each in by_product(read).items()} == {"milk": 2, "oats": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file,what\na.jpg,milk\n", "columns file and product"),
        ("", "columns file and product"),
        ("file,product\n", "names no pictures"),
        ("file,product\na.jpg,mlik\nb.jpg,\n,milk\n", r"line 2: 'mlik' is no product of this catalogue\n  line 4: names no file"),
        ("file,product\na.jpg,4006381333932\n", "is no product of this catalogue"),
        ("file,product\n" + "a.jpg,none\n" * 30, "and 20 more"),
    ],
)
def test_a_manifest_that_does_not_fit_the_catalogue_is_refused_whole(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(Misconfigured, match=reason):
        read_manifest(manifest(tmp_path, text), PRODUCTS)
