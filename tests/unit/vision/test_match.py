"""Photographs of packages are told from one catalogue picture each; what is not in the catalogue is not found in it."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from infra.triton.vision import appearance, extract, geometry, match, matching
from infra.triton.vision.features import Features
from infra.triton.vision.options import Deadline, OptionsRefused
from infra.triton.vision.parameters import PARAMETERS
from infra.triton.vision.quality import quality
from infra.triton.vision.snapshots import SnapshotRefused, open_snapshot
from streams.sightings import thresholds
from tests.support.groceries import OF_NO_PRODUCT, PRODUCTS, SHOWN, catalogue_picture, photograph, pixels, publish


@pytest.fixture(scope="module")
def features() -> dict[str, Features]:
    return {product: extract.of_catalogue_picture(pixels(catalogue_picture(product))) for product in PRODUCTS}


@pytest.fixture
def directory(tmp_path: Path, features: dict[str, Features]) -> Path:
    blobs = [(product, known.to_bytes()) for product, known in features.items()]
    publish(tmp_path, "shop-1-abc", blobs, matcher=PARAMETERS.matcher)
    return tmp_path


@pytest.fixture
def matcher(directory: Path) -> matching.Matcher:
    return matching.Matcher(directory, keep=2)


def ask(matcher: matching.Matcher, name: str, snapshots: Sequence[str] = ("shop-1-abc",), **options: object) -> dict[str, object]:
    return matcher.answer(pixels(photograph(name)), {"snapshots": list(snapshots), **options}, Deadline())


def area(outline: Sequence[Sequence[float]]) -> float:
    return float(cv2.contourArea(np.array(outline, np.float32), oriented=True))


@pytest.mark.parametrize(("photo", "product"), SHOWN.items())
def test_a_product_is_found_where_it_is(matcher: matching.Matcher, photo: str, product: str) -> None:
    answer = ask(matcher, photo, explain=True)
    first, *others = answer["candidates"]  # type: ignore[misc]
    assert first["product_id"] == product and first["snapshot"] == "shop-1-abc"
    assert first["score"] > max(other["score"] for other in others) + 2
    assert len(first["points"]) == first["inliers"] >= 20
    assert area(first["outline"]) > 0.1 * 348 * 348, "clockwise, and a good part of the frame"
    inside = [cv2.pointPolygonTest(np.array(first["outline"], np.float32), point, True) > -15 for point in first["points"]]
    assert all(inside)
    assert (answer["matcher"], answer["width"], answer["height"]) == (PARAMETERS.scorer, 348, 348)


def test_a_product_of_no_catalogue_is_told_by_its_score(matcher: matching.Matcher) -> None:
    best = max(one["score"] for one in ask(matcher, OF_NO_PRODUCT)["candidates"])  # type: ignore[attr-defined]
    for photo in SHOWN:
        assert ask(matcher, photo)["candidates"][0]["score"] > best + 3  # type: ignore[index]


@pytest.mark.parametrize("size", [16, 24, 40])
def test_black_text_on_white_is_no_product(matcher: matching.Matcher, size: int) -> None:
    page = np.full((640, 480, 3), 255, np.uint8)
    for line in range(0, 600, size):
        cv2.putText(page, "Lorem ipsum dolor sit amet, consetetur", (10, line + size), 0, size / 40, (0, 0, 0), 1, cv2.LINE_AA)
    found = matcher.answer(page, {"snapshots": ["shop-1-abc"]}, Deadline())["candidates"]
    assert all(one["score"] < 0 for one in found), found


def test_a_larger_frame_has_its_outline_in_its_own_pixels(matcher: matching.Matcher) -> None:
    photo = pixels(photograph("Arla-Natural-Yoghurt_002"))
    larger = np.asarray(cv2.resize(photo, (696, 696), interpolation=cv2.INTER_CUBIC), np.uint8)
    options = {"snapshots": ["shop-1-abc"]}
    [small, large] = [matcher.answer(frame, options, Deadline())["candidates"][0] for frame in (photo, larger)]
    assert large["product_id"] == small["product_id"]
    np.testing.assert_allclose(np.array(large["outline"]) / 2, small["outline"], atol=12)


def test_several_pictures_of_one_product_are_one_candidate(tmp_path: Path, features: dict[str, Features]) -> None:
    blobs = [(product, features[product].to_bytes()) for product in (*PRODUCTS, *PRODUCTS)]
    publish(tmp_path, "twice", blobs, matcher=PARAMETERS.matcher)
    candidates = ask(matching.Matcher(tmp_path, keep=1), "Oatly-Oat-Milk_003", ["twice"])["candidates"]
    products = [one["product_id"] for one in candidates]  # type: ignore[attr-defined]
    assert products[0] == "Oatly-Oat-Milk" and len(products) == len(set(products))


def test_several_snapshots_are_searched_and_a_bad_one_is_told(matcher: matching.Matcher, directory: Path) -> None:
    features = (directory / "shop-1-abc" / "features.bin").read_bytes()
    publish(directory, "other-1-abc", [("other", features)], matcher="orb-7")
    answer = ask(matcher, "Oatly-Oat-Milk_003", ["shop-1-abc", "other-1-abc", "gone"])
    assert answer["candidates"][0]["product_id"] == "Oatly-Oat-Milk"  # type: ignore[index]
    assert answer["refused"].keys() == {"other-1-abc", "gone"}  # type: ignore[attr-defined]
    with pytest.raises(SnapshotRefused, match=r"made by matcher 'orb-7'.*; snapshot gone is not there"):
        ask(matcher, "Oatly-Oat-Milk_003", ["other-1-abc", "gone"])


def test_without_snapshots_the_frame_is_still_judged(matcher: matching.Matcher) -> None:
    answer = ask(matcher, "Oatly-Oat-Milk_003", [])
    assert answer["candidates"] == [] and answer["quality"]["sharpness"] > 25  # type: ignore[index]
    with pytest.raises(SnapshotRefused, match="AUGENBLICK_CATALOGUE_DIRECTORY is not set"):
        ask(matching.Matcher(None, keep=1), "Oatly-Oat-Milk_003")


def test_where_no_time_is_left_only_the_likeliest_is_looked_for(matcher: matching.Matcher) -> None:
    options = {"snapshots": ["shop-1-abc"]}
    answer = matcher.answer(pixels(photograph("Oatly-Oat-Milk_003")), options, Deadline(0.001))
    assert [one["product_id"] for one in answer["candidates"]] == ["Oatly-Oat-Milk"]


@pytest.mark.parametrize("options", [{"snapshots": [7]}, {"snapshots": ["a"] * 257}, {"candidates": 0}, {"candidates": 51}])
def test_options_out_of_bounds_are_refused(matcher: matching.Matcher, options: dict[str, object]) -> None:
    with pytest.raises(OptionsRefused):
        matcher.answer(pixels(photograph("Oatly-Oat-Milk_003")), options, Deadline())


def test_a_frame_without_anything_in_it_has_no_candidates(matcher: matching.Matcher) -> None:
    plain = np.full((240, 320, 3), 128, np.uint8)
    assert matcher.answer(plain, {"snapshots": ["shop-1-abc"]}, Deadline())["candidates"] == []


def test_the_same_frame_has_the_same_answer(matcher: matching.Matcher) -> None:
    assert ask(matcher, "Yoggi-Strawberry-Yoghurt_005") == ask(matcher, "Yoggi-Strawberry-Yoghurt_005")


def test_even_ground_is_cut_off_a_catalogue_picture() -> None:
    picture = np.full((300, 200, 3), 250, np.uint8)
    picture[40:260, 70:150] = np.random.default_rng(1).integers(0, 200, (220, 80, 3))
    assert extract.content(picture) == (70, 40, 80, 220)
    assert extract.content(np.ascontiguousarray(picture[50:250, 80:140])) == (0, 0, 60, 200), "there is none"
    assert extract.content(np.full((100, 100, 3), 250, np.uint8)) == (0, 0, 100, 100), "there is nothing else"


def test_a_picture_without_points_is_refused() -> None:
    with pytest.raises(extract.UselessPicture, match="points to recognise it by"):
        extract.of_catalogue_picture(np.full((200, 200, 3), 200, np.uint8))


def seen_through(view: NDArray[np.float64], count: int, wrong: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points of a picture of 400 pixels, and where a view shows them; the last `wrong` of them anywhere."""
    random = np.random.default_rng(3)
    there = np.c_[random.uniform(20, 380, (count, 2)), random.uniform(4, 12, count), random.uniform(0, 360, count)]
    here = there.copy()
    here[:, :2] = geometry.moved(view, there[:, :2])
    ahead = np.deg2rad(there[:, 3])
    tips = geometry.moved(view, there[:, :2] + np.c_[np.cos(ahead), np.sin(ahead)])
    step = tips - here[:, :2]
    here[:, 2] *= np.linalg.norm(step, axis=1)
    here[:, 3] = np.rad2deg(np.arctan2(step[:, 1], step[:, 0]))
    here[count - wrong :, :2] = random.uniform(0, 350, (wrong, 2))
    here[count - wrong :, 3] = random.uniform(0, 360, wrong)
    return there.astype(np.float32), here.astype(np.float32)


@pytest.mark.parametrize(("count", "wrong"), [(4, 0), (8, 4), (60, 40)])
def test_a_turned_and_smaller_picture_is_found_among_wrong_pairs(count: int, wrong: int) -> None:
    turn = np.deg2rad(200)
    view = np.array([[0.5 * np.cos(turn), -0.5 * np.sin(turn), 250], [0.5 * np.sin(turn), 0.5 * np.cos(turn), 200], [0, 0, 1]])
    there, here = seen_through(view, count, wrong)
    found = geometry.align(there, here, np.ones(count, np.float32), 400)
    assert found is not None and found.inliers[: count - wrong].all()
    corners = np.array([[0, 0], [400, 0], [400, 400], [0, 400]], np.float64)
    np.testing.assert_allclose(geometry.moved(found.homography, corners), geometry.moved(view, corners), atol=12)


def test_a_picture_seen_at_a_slant_is_found_by_a_homography() -> None:
    view = np.array([[0.7, 0.05, 30], [0.02, 0.6, 40], [4e-4, 2e-4, 1]])
    there, here = seen_through(view, 80, 20)
    found = geometry.align(there, here, np.ones(80, np.float32), 400)
    assert found is not None and found.inliers[:60].sum() > 50
    corners = np.array([[0, 0], [400, 0], [400, 400], [0, 400]], np.float64)
    np.testing.assert_allclose(geometry.moved(found.homography, corners), geometry.moved(view, corners), atol=6)


def test_two_pairs_are_no_place() -> None:
    there, here = seen_through(np.eye(3), 2, 0)
    assert geometry.align(there, here, np.ones(2, np.float32), 400) is None


def test_a_catalogue_of_few_is_judged_like_one_of_many(features: dict[str, Features]) -> None:
    """What one picture's score is hardly depends on what else is sold."""
    frame = extract.of_frame(pixels(photograph("Arla-Natural-Yoghurt_002")))
    basis = match.basis(features.values())
    references = [match.Reference.of(product, known, basis) for product, known in features.items()]

    def scored(few: Sequence[match.Reference]) -> float:
        found = match.look(frame, few, match.compare(frame, few, basis), len(few), range(len(few)), Deadline())
        return max(one.score for one in found if one.reference.product_id == "Arla-Natural-Yoghurt")

    alone = scored([one for one in references if one.product_id == "Arla-Natural-Yoghurt"])
    assert scored(references) == pytest.approx(alone, abs=1)


def test_with_a_large_catalogue_only_the_middle_is_compared(
    directory: Path, features: dict[str, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = extract.of_frame(pixels(photograph("Oatly-Oat-Milk_003")))
    snapshot = open_snapshot(directory, "shop-1-abc", matcher=PARAMETERS.matcher)
    whole = match.search(frame, match.Catalogue(snapshot), None, Deadline())
    monkeypatch.setattr(match, "EXHAUSTIVE_UP_TO", len(snapshot) - 1)
    monkeypatch.setattr(match, "POINTS_IN_MANY", 300)
    assert len(frame.points) > 600
    middle = match.search(frame, match.Catalogue(snapshot), range(len(snapshot)), Deadline())
    assert [found[0].reference.product_id for found in (whole, middle)] == ["Oatly-Oat-Milk"] * 2
    off = [np.abs(found[0].points / frame.size - 0.5).max() for found in (whole, middle)]
    assert 20 <= len(middle[0].points) < len(whole[0].points) and off[1] < off[0]
    monkeypatch.setattr(match, "POINTS_IN_MANY", len(frame.points))
    everything = match.search(frame, match.Catalogue(snapshot), range(len(snapshot)), Deadline())
    assert [one.score for one in everything] == [one.score for one in whole]


@pytest.mark.parametrize("size", [(192, 110), (105, 192), (192, 97), (9, 5), (3, 2)])
def test_a_pictures_blocks_know_what_is_in_them(size: tuple[int, int]) -> None:
    random = np.random.default_rng(4)
    colour = np.asarray(random.normal((120, 130, 110), (30, 9, 7), (*size, 3)).clip(0, 255), np.uint8)
    colour[: size[0] // 3] = (90, 140, 120)  # of one colour
    colour[-size[0] // 4 :, :, 0] = 255  # light, and of several colours: no ground
    look = appearance.Look.of(colour)
    for block in look.blocks:
        part = colour[block.top : block.top + block.height, block.left : block.left + block.width].astype(np.float64)
        assert (block.brightness is not None) == (part[..., 0].std() > 3)
        contrast = part[..., 1:] - part[..., 1:].mean(axis=(0, 1))
        assert (block.contrast is not None) == (contrast.std() > 4)
        np.testing.assert_allclose(block.colour, part[..., 1:].mean(axis=(0, 1)))
        assert block.contrast_length == pytest.approx(np.linalg.norm(contrast))
        if block.brightness is not None:
            np.testing.assert_array_equal(block.brightness, part[..., 0])
        if block.contrast is not None:
            np.testing.assert_allclose(block.contrast, contrast, atol=1e-4)
    if min(size) > 90:
        kinds = {(block.brightness is None, block.contrast is None) for block in look.blocks}
        assert len(look.blocks) > 25 and {(True, True), (False, False)} <= kinds


def blurred(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 4), np.uint8)


def quality_of(picture: NDArray[np.uint8]) -> dict[str, float]:
    return vars(quality(np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2LAB), np.uint8)))


def test_each_number_of_quality_follows_its_fault() -> None:
    for photo in (*SHOWN, OF_NO_PRODUCT):
        picture = pixels(photograph(photo))
        good = quality_of(picture)
        assert good["sharpness"] > 25 > quality_of(blurred(picture))["sharpness"]
        assert quality_of((picture * 0.1).astype(np.uint8))["brightness"] < 40 < good["brightness"]
        glaring = picture.copy()
        glaring[100:250, 100:250] = 255
        assert quality_of(glaring)["glare"] > 0.12 > good["glare"]
        assert good["texture"] > 6
    wall = np.random.default_rng(2).normal(150, 2, (200, 300, 3)).clip(0, 255).astype(np.uint8)
    assert quality_of(wall)["texture"] < 6
    assert quality_of(np.zeros((8, 8, 3), np.uint8))["texture"] == 0


def test_the_shipped_thresholds_act_on_what_is_plain_to_see(matcher: matching.Matcher) -> None:
    limits = thresholds.shipped()
    assert limits.may_act(PARAMETERS.scorer) and limits.promise is not None

    def confidence(photo: str) -> float:
        first, second, *_ = ask(matcher, photo)["candidates"]  # type: ignore[misc]
        return limits.calibration.confidence(first["product_id"], first["score"], second["score"])

    assert sum(confidence(photo) >= limits.act for photo in SHOWN) >= len(SHOWN) / 2
    assert confidence(OF_NO_PRODUCT) < limits.ask
