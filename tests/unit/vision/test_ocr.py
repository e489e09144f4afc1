"""What is done with the ink between finding a line and reading it. The models themselves are tested where they run
(tests/integration/test_ocr_model.py)."""

import cv2
import numpy
import pytest

from infra.triton.vision import ocr

FONT = cv2.FONT_HERSHEY_DUPLEX


def corners(left: float, top: float, right: float, bottom: float) -> ocr.Corners:
    return numpy.array([(left, top), (right, top), (right, bottom), (left, bottom)], numpy.float32)


def written(*texts: tuple[str, tuple[int, int], float], size: tuple[int, int] = (400, 200), light: bool = False) -> ocr.Picture:
    """Texts at the left end of their base line, with OpenCV's scale of letters (1 is 22 pixels high), dark on light or light on
    dark."""
    paper, ink = (30, 235) if light else (235, 30)
    picture = numpy.full((size[1], size[0], 3), paper, numpy.uint8)
    for text, at, scale in texts:
        cv2.putText(picture, text, at, FONT, scale, (ink, ink, ink), max(1, round(2 * scale)), cv2.LINE_AA)
    return picture


@pytest.mark.parametrize("light", [False, True])
def test_raised_digits_are_told_from_the_whole_before_them(light: bool) -> None:
    line = written(("1", (40, 160), 5), ("49", (150, 105), 2.3), light=light)
    raised = ocr.raised_digits(line, "149")
    assert raised is not None
    begin, bottom = raised
    assert 105 < begin * 400 < 158  # between the two
    assert 105 < bottom * 200 < 160


def test_a_sign_may_touch_the_small_digits() -> None:
    line = written(("33", (20, 160), 4.5), ("1", (200, 160), 4.5), ("99", (265, 105), 2.3))
    cv2.rectangle(line, (268, 100), (290, 159), (30, 30, 30), -1)  # as high as the whole
    raised = ocr.raised_digits(line, "33199")
    assert raised is not None
    assert 230 < raised[0] * 400 < 270


def smaller(picture: ocr.Picture, height: int) -> ocr.Picture:
    width = round(picture.shape[1] * height / picture.shape[0])
    return numpy.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), dtype=numpy.uint8)


def shelf_tag(height: int = 24) -> ocr.Picture:
    """34 and a raised 95, as a shelf's tag is seen from two steps away: the small digits run into each other."""
    return smaller(written(("3", (30, 150), 4.5), ("4", (125, 150), 4.5), ("95", (230, 100), 2.2)), height)


@pytest.mark.parametrize("height", [20, 24, 32, 60])
def test_raised_digits_are_seen_in_a_small_picture(height: int) -> None:
    raised = ocr.raised_digits(shelf_tag(height), "3495")
    assert raised is not None
    assert 205 < raised[0] * 400 < 240


@pytest.mark.parametrize("text", ["345", "34950", "395"])
def test_where_a_digit_was_not_read_no_digits_are_raised(text: str) -> None:
    assert ocr.raised_digits(shelf_tag(), text) is None


@pytest.mark.parametrize("columns", [28, 40])
def test_what_a_hand_covers_of_a_number_makes_it_no_number(columns: int) -> None:
    covered = shelf_tag(96)
    covered[:, :columns] = covered[0, 0]  # of the 3, which reaches to 54
    assert ocr.raised_digits(covered, "495") is None


@pytest.mark.parametrize("text", ["149", "1490"])
def test_digits_of_one_height_are_one_number(text: str) -> None:
    assert ocr.raised_digits(written((text, (20, 150), 3.5)), text) is None


@pytest.mark.parametrize("text", ["1.49", "49", "Milk", "14.9", ""])
def test_what_is_not_run_together_is_not_looked_at(text: str) -> None:
    assert ocr.raised_digits(written(("1", (40, 160), 5), ("49", (150, 105), 2.3)), text) is None


def test_a_large_digit_is_found_before_its_raised_cents() -> None:
    picture = written(("4", (150, 200), 5), ("99", (270, 145), 2.4), size=(500, 300))
    found = ocr.large_digits_before(picture, corners(262, 80, 370, 158))
    assert found is not None
    left, top = found.min(axis=0)
    right, bottom = found.max(axis=0)
    assert 110 < left < 165
    assert 235 < right < 275
    assert top < 95
    assert 198 < bottom < 240


def test_nothing_is_found_where_nothing_large_stands() -> None:
    picture = written(("12", (150, 145), 2.4), ("99", (270, 145), 2.4), size=(500, 300))
    assert ocr.large_digits_before(picture, corners(262, 80, 370, 158)) is None


def test_a_part_of_a_line_is_where_it_is_in_the_picture() -> None:
    tilted = numpy.array([(100, 100), (300, 120), (296, 160), (96, 140)], numpy.float32)
    half = ocr.part(tilted, (0.5, 0, 1, 1))
    assert half.tolist() == [[200, 110], [300, 120], [296, 160], [196, 150]]


def test_a_cut_out_line_is_upright() -> None:
    picture = written(("ABC", (60, 120), 2))
    line = ocr.cut(picture, corners(50, 60, 250, 140))
    assert line.shape == (80, 200, 3)
    assert numpy.abs(line.astype(int) - picture[60:140, 50:250]).mean() < 8


def test_a_tall_line_is_turned_to_lie() -> None:
    assert ocr.cut(written(("A", (60, 120), 2)), corners(50, 20, 90, 180)).shape == (40, 160, 3)
