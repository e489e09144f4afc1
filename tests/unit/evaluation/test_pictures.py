"""Pictures from files, and pictures that commands write: what is read, what is drawn, what stays in memory."""

import io
import json
import os
import struct
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from PIL import Image, ImageDraw

from schemas.errors import Misconfigured
from schemas.money import Money
from schemas.recognition import Code, Condition, Elements, InStore, Measure, PayeeCode, PayeeScheme, PriceTag, UnitPrice
from streams.evaluation import drawing
from streams.evaluation.explanation import Explained, annotated, parts_of, said_of
from streams.evaluation.leave_one_out import tidy, without
from streams.evaluation.measures import Outcome, at_coverage
from streams.evaluation.picture_files import MAX_BYTES, UnreadablePicture, frame_of, pictures_in
from streams.evaluation.plots import Case, Panel, _lines, contact_sheets, precision_coverage_plot
from streams.sightings.payee_codes import PayersCode
from streams.sightings.triton import Line, Matched

CORNERS = ((20.0, 20.0), (80.0, 20.0), (80.0, 60.0), (20.0, 60.0))


def encoded(picture: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    written = io.BytesIO()
    picture.save(written, format, **options)
    return written.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def colours(picture: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in picture.convert("RGB").getcolors(2**24) or []}  # type: ignore[misc]


def test_folders_are_read_with_all_folders_in_them(tmp_path: Path) -> None:
    for name in ("b.JPG", "._b.JPG", "a/c.webp", "a/d.png", "a/notes.txt", "a/e.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    named = tmp_path / "a" / "notes.txt"
    found = [path.relative_to(tmp_path).as_posix() for path in pictures_in([tmp_path, named])]
    assert found == ["a/c.webp", "a/d.png", "a/e.jpeg", "b.JPG", "a/notes.txt"]


def test_a_jpeg_that_is_a_frame_already_is_sent_byte_for_byte(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (640, 480), "red"))
    (tmp_path / "frame.jpg").write_bytes(data)
    assert frame_of(tmp_path / "frame.jpg") == data


PREVIEW = encoded(Image.new("RGB", (32, 32), "blue"))


def with_preview(data: bytes) -> bytes:
    """In its metadata, as cameras put it there: a picture with a beginning and an end of its own."""
    content = b"Exif\0\0II*\0\x08\0\0\0" + bytes(6) + PREVIEW
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}], ids=["plain", "progressive", "restart"]
)
@pytest.mark.parametrize("preview", [False, True], ids=["without preview", "with preview"])
@pytest.mark.parametrize("behind", [b"ftypmp42" * 9000, PREVIEW, bytes(30)], ids=["film", "picture", "padding"])
def test_what_a_telephone_puts_behind_a_picture_is_left_behind(
    tmp_path: Path, options: dict[str, object], preview: bool, behind: bytes
) -> None:
    data = encoded(Image.effect_noise((640, 480), 90).convert("RGB"), **options)
    data = with_preview(data) if preview else data
    (tmp_path / "phone.jpg").write_bytes(data + behind)
    assert frame_of(tmp_path / "phone.jpg") == data


def test_the_first_of_several_pictures_in_one_file_is_taken_as_it_is(tmp_path: Path) -> None:
    picture, other = (Image.effect_noise((320, 240), spread).convert("RGB") for spread in (90, 30))
    picture.save(tmp_path / "deep.jpg", "MPO", save_all=True, append_images=[other])
    data = (tmp_path / "deep.jpg").read_bytes()
    made = frame_of(tmp_path / "deep.jpg")
    assert data.startswith(made) and data.count(b"\xff\xd9") == 2 and made.count(b"\xff\xd9") == 1


def test_an_unusual_jpeg_is_written_anew(tmp_path: Path) -> None:
    """What ends a part of it is not where it says: some decoders pass over it."""
    data = encoded(Image.effect_noise((320, 240), 90).convert("RGB"))
    tables = data.index(b"\xff\xdb")
    (tmp_path / "odd.jpg").write_bytes(data[:tables] + bytes(3) + data[tables:])
    made = frame_of(tmp_path / "odd.jpg")
    assert opened(made).size == (320, 240) and bytes(3) + b"\xff\xdb" not in made


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_jpeg_of_other_colours_becomes_one_of_these(tmp_path: Path, mode: str) -> None:
    (tmp_path / "print.jpg").write_bytes(encoded(Image.new("RGB", (64, 64), (200, 120, 40)).convert(mode), quality=95))
    made = Image.open(io.BytesIO(frame_of(tmp_path / "print.jpg")))
    light = 0.299 * 200 + 0.587 * 120 + 0.114 * 40
    assert made.mode == "RGB" and made.convert("L").getpixel((32, 32)) == pytest.approx(light, abs=4)


def test_sixteen_bits_of_grey_keep_their_shades(tmp_path: Path) -> None:
    shades = Image.frombytes("I;16", (256, 8), struct.pack("<256H", *range(0, 65536, 256)) * 8)
    (tmp_path / "scan.png").write_bytes(encoded(shades, "PNG"))
    made = opened(frame_of(tmp_path / "scan.png"))
    assert [made.getpixel((x, 4))[0] for x in (16, 128, 240)] == pytest.approx([16, 128, 240], abs=3)  # type: ignore[index]


def test_of_a_film_the_first_picture_is_taken(tmp_path: Path) -> None:
    film = encoded(Image.new("RGB", (64, 64), "red"), "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 64), "blue")])
    (tmp_path / "film.webp").write_bytes(film)
    assert opened(frame_of(tmp_path / "film.webp")).getpixel((32, 32)) == pytest.approx((254, 0, 0), abs=8)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_other_formats_become_jpegs_and_what_shows_through_is_white(tmp_path: Path, format: str) -> None:
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 32, 64))
    (tmp_path / "cut-out").write_bytes(encoded(picture, format, lossless=True))
    made = opened(frame_of(tmp_path / "cut-out"))
    assert made.getpixel((48, 32)) == pytest.approx((255, 255, 255), abs=8)
    assert made.getpixel((10, 32)) == pytest.approx((254, 0, 0), abs=8)


def test_a_telephones_picture_is_turned_upright_and_made_as_small_as_a_frame(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    noise = Image.effect_noise((3000, 2000), 90).convert("RGB")
    (tmp_path / "phone.jpg").write_bytes(encoded(noise, exif=exif, quality=95))
    made = frame_of(tmp_path / "phone.jpg")
    assert (tmp_path / "phone.jpg").stat().st_size > MAX_BYTES >= len(made)
    assert opened(made).size == (1365, 2048)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no JPEG, PNG or WebP"),
        (b"no picture at all", "no JPEG, PNG or WebP"),
        (encoded(Image.new("RGB", (9, 9)), "GIF"), "no JPEG, PNG or WebP"),
        (encoded(Image.effect_noise((640, 480), 90).convert("RGB"))[:9000], "damaged or truncated"),
        (encoded(Image.new("1", (20_000, 20_000)), "PNG"), "more than 100 million pixels"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(900), "is HEIC, and no JPEG"),
        (encoded(Image.new("RGB", (1, 1))), "too small or too narrow: as a frame it has 1 × 1 pixels"),
        (encoded(Image.new("RGB", (9000, 20)), "PNG"), "too small or too narrow: as a frame it has 2048 × 5 pixels"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "file.jpg").write_bytes(data)
    with pytest.raises(UnreadablePicture, match=reason):
        frame_of(tmp_path / "file.jpg")


def test_a_file_that_is_not_there_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(UnreadablePicture, match="No such file"):
        frame_of(tmp_path / "nothing.jpg")


def test_outlines_boxes_and_points_are_drawn_where_they_are() -> None:
    frame = encoded(Image.new("RGB", (900, 600), "black"), quality=95)
    match = Matched(
        snapshot="s",
        product_id="milk",
        score=31.5,
        inliers=3,
        outline=((600, 300), (800, 300), (800, 500), (600, 500)),
        points=((700.0, 400.0),),
    )
    tag = PriceTag(price=Money.of(149, "EUR"), confidence=0.9, corners=((50, 400), (250, 400), (250, 500), (50, 500)))
    line = Line(text="Milch", confidence=0.9, corners=((300.0, 100.0), (500.0, 100.0), (500.0, 150.0), (300.0, 150.0)))
    code = Code(text="", format="EAN13", corners=CORNERS, gtin="04006381333931")
    bare = annotated(Explained(frame))
    whole = annotated(Explained(frame, [code], [line], [(match, "Organic milk")], tag, ["act: Organic milk", "x" * 500]))
    assert bare.size == (900, 600) and len(colours(bare)) == 1
    assert whole.width == 900 and whole.height > 600, "what was decided is written below the picture, not on it"
    for colour, at in {
        drawing.ORANGE: (50, 20),
        drawing.BLUE: (400, 150),
        drawing.GREEN: (800, 400),
        drawing.RED: (250, 450),
    }.items():
        assert whole.getpixel(at) == colour
    around = whole.crop((690, 390, 711, 411))
    assert drawing.GREEN in colours(around), "the point that agrees"
    assert whole.crop((400, 200, 560, 280)).getcolors() == [(160 * 80, (0, 0, 0))], "and nothing where nothing is"


def test_what_is_somebodys_money_cannot_be_scanned_from_the_picture() -> None:
    frame = encoded(Image.new("RGB", (900, 600), "white"), quality=95)
    code = PayersCode(text="", format="QRCode", corners=((100, 100), (300, 100), (300, 300), (100, 300)))
    digits = Line(text="2812 3456 7890 1234 56", confidence=0.9, corners=((400, 100), (700, 100), (700, 140), (400, 140)))
    whole = annotated(Explained(frame, [code], [digits]))
    assert whole.crop((110, 130, 290, 290)).getcolors() == [(180 * 160, drawing.INK)]
    assert whole.crop((410, 105, 690, 135)).getcolors() == [(280 * 30, drawing.INK)]


def test_a_small_picture_is_enlarged_with_what_is_in_it() -> None:
    picture = annotated(
        Explained(encoded(Image.new("RGB", (100, 100), "black")), [Code(text="", format="QRCode", corners=CORNERS)])
    )
    assert picture.size == (900, 900)
    assert picture.getpixel((720, 400)) == drawing.ORANGE


def test_what_a_code_and_a_tag_say_is_said_in_words() -> None:
    elements = Elements(expires_on=date(2027, 1, 31), batch="B7")
    bare = Code(text="", format="QRCode", corners=CORNERS)
    for update, said in (
        ({}, []),
        ({"gtin": "04006381333931", "elements": elements}, ["04006381333931", "until 2027-01-31", "batch B7"]),
        ({"in_store": InStore(item="12345", price=Money.of(349, "EUR"))}, ["in-store item 12345, 3.49 EUR"]),
        ({"in_store": InStore(item="12345", weight=Measure(value=Decimal("0.500"), unit="kg"))}, ["in-store item 12345, 0.5 kg"]),
        ({"in_store": InStore(item="12345")}, ["in-store item 12345"]),
        ({"publication": "ISSN 12345679", "issue": 7}, ["ISSN 12345679", "issue 7"]),
        ({"printed_price": Money.of(2250, "USD")}, ["printed price 22.50 USD"]),
        ({"payee": PayeeCode(scheme=PayeeScheme.EMVCO, key="0" * 64, name="Eck")}, ["payee by emvco Eck"]),
        ({"link": "https://shop.example/a"}, ["https://shop.example/a"]),
    ):
        assert said_of(bare.model_copy(update=update)) == said
    tag = PriceTag(
        price=Money.of(300, "EUR"),
        was=Money.of(400, "EUR"),
        unit_price=UnitPrice(price=Money.of(600, "EUR"), per=Measure(value=Decimal("1.0"), unit="kg")),
        quantity=Measure(value=Decimal(500), unit="g"),
        conditions=(Condition(kind="multi_buy", pieces=2, total=Money.of(500, "EUR")), Condition(kind="card")),
        confidence=0.8,
        corners=CORNERS,
    )
    said = parts_of(tag)
    assert said[1].startswith("was ") and said[2].endswith(" for 1 kg") and said[3] == "500 g"
    assert said[4].startswith("2 for ") and said[5] == "with card"


def test_a_caption_is_cut_to_its_width_and_holds_no_control_character() -> None:
    assert drawing.clipped("short", 12, 500) == "short"
    cut = drawing.clipped("a caption that is far too long for this", 12, 60)
    assert cut.endswith("…") and drawing.font(12).getlength(cut) <= 60
    assert drawing.clipped("a\x1b[31m\nb", 12, 500) == "a [31m b"
    assert drawing.clipped("果汁 1 л, 3 €", 12, 500) == r"\u679c\u6c41 1 л, 3 €", "the font has no Chinese"
    draw = ImageDraw.Draw(Image.new("RGB", (50, 50)))
    drawing.labels(draw, [drawing.Label((500, -500), "outside", drawing.RED, 12)])


def test_labels_of_one_place_stand_one_below_the_other() -> None:
    picture = Image.new("RGB", (200, 200))
    colours_in_order = (drawing.GREEN, drawing.FAINT, drawing.RED)
    wanted = [drawing.Label((20, 30), "one text", colour, 12) for colour in colours_in_order]
    drawing.labels(ImageDraw.Draw(picture), wanted)
    column = [picture.getpixel((21, y)) for y in range(200)]
    shown = [column.count(colour) for colour in colours_in_order]
    assert min(shown) == max(shown) > 10, "each of them whole"
    assert [colour for colour in dict.fromkeys(column) if colour != (0, 0, 0)] == list(colours_in_order)


def test_several_hundred_errors_fill_sheets_of_which_one_is_in_memory(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(encoded(Image.effect_noise((300, 200), 60).convert("RGB")))
    thumbnail = encoded(Image.new("RGB", (200, 100), (0, 0, 200)))
    (tmp_path / "errors-19.jpg").touch()

    def cases() -> Iterator[Case]:
        for number in range(250):
            assert len(list(tmp_path.glob("errors*.jpg"))) == number // 30, "a sheet is written before the next is begun"
            answered = Panel("a title that is long enough for three lines of this width", thumbnail)
            if number % 2:
                yield Case(photo if number % 3 else tmp_path / "gone.jpg", f"photo {number}", answered, Panel("no picture"))
            else:
                yield Case(photo, f"photo {number}", answered, None)

    sheets = contact_sheets(cases(), tmp_path)
    assert [sheet.name for sheet in sheets] == ["errors.jpg", *(f"errors-{number}.jpg" for number in range(2, 10))]
    first, last = opened(sheets[0].read_bytes()), opened(sheets[-1].read_bytes())
    assert first.width == last.width and last.height < first.height
    assert first.getpixel((300, 100)) == pytest.approx((0, 0, 200), abs=12), "what was answered stands beside the photo"


def test_no_errors_leave_no_sheet(tmp_path: Path) -> None:
    (tmp_path / "errors.jpg").touch()
    assert contact_sheets([], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_caption_of_three_lines_is_not_cut(tmp_path: Path) -> None:
    words = [f"word{number:02}" for number in range(9)]
    written = " ".join(_lines(" ".join(words)))
    assert written.split() == words
    assert _lines("x" * 500)[2].endswith("…") and len(_lines("x" * 500)) == 3 and _lines("short") == ["short"]


def test_the_curve_says_of_all_pictures_what_the_table_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[list[float], list[float], str]] = []

    def step(self: Axes, x: list[float], y: list[float], *, where: str, **rest: object) -> object:
        drawn.append((x, y, where))
        return self.plot(x, y, drawstyle=f"steps-{where}", **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Axes, "step", step)
    outcomes = [Outcome(f"{n}", "a", ("a" if n > 3 else "b",), n / 10, "act", 1.0) for n in range(10)]
    precision_coverage_plot(outcomes, tmp_path / "curve.png", title="ten pictures")
    [(x, y, where)] = drawn
    assert where == "pre", "to cover a little more it takes the next point"
    for coverage in (0.05, 0.55, 0.65, 1.0):
        place = next(place for place, value in enumerate(x) if value >= coverage)
        assert y[place] == at_coverage(outcomes, coverage).precision


@pytest.mark.parametrize("count", [0, 1, 700])
def test_the_curve_is_drawn_whatever_was_measured(tmp_path: Path, count: int) -> None:
    outcomes = [Outcome(f"{n}", "a", ("a" if n % 7 else "b",), n / 1000, "act", 1.0) for n in range(count)]
    precision_coverage_plot(outcomes, tmp_path / "curve.png", title="Krämer's, 5 $ and 果汁", act=0.4)
    with Image.open(tmp_path / "curve.png") as plot:
        assert plot.format == "PNG" and plot.width > 600
        assert len(plot.convert("RGB").getcolors(2**20) or []) > 20


def snapshot(directory: Path) -> None:
    (directory / "whole-1").mkdir()
    (directory / "whole-1" / "features.bin").write_bytes(b"f" * 64)
    entries = [{"product_id": name, "picture": "0" * 64, "offset": 0, "length": 32} for name in ("a", "b", "a")]
    (directory / "whole-1" / "manifest.json").write_text(json.dumps({"format": 1, "sha256": "x", "products": entries}))


def test_a_snapshot_without_a_product_shares_its_features_and_is_gone_afterwards(tmp_path: Path) -> None:
    snapshot(tmp_path)
    with without(tmp_path, "whole-1", "a") as name:
        made = tmp_path / name
        assert [entry["product_id"] for entry in json.loads((made / "manifest.json").read_text())["products"]] == ["b"]
        assert (made / "features.bin").samefile(tmp_path / "whole-1" / "features.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["whole-1"]


def test_a_directory_that_holds_no_such_snapshot_is_named_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="AUGENBLICK_CATALOGUE_DIRECTORY"), without(tmp_path, "whole-1", "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_only_what_was_left_long_ago_is_tidied_away(tmp_path: Path) -> None:
    snapshot(tmp_path)
    for name in ("without-old", "without-new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "without-old", (0, 0))
    tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole-1", "without-new"]
