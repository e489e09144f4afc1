"""The commands that look at pictures, with a real Triton and a real catalogue of packages that nobody sells."""

import asyncio
import csv
import json
import os
import pty
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from stdnum import ean
from typer.testing import CliRunner

from infra.cli import app
from infra.local.stack import LocalStack
from schemas.errors import AugenblickError
from streams.sightings import in_store
from streams.sightings.thresholds import Thresholds
from tests.support.frames import barcode_jpeg, gtin13, qr_jpeg
from tests.support.packages import empty_shelf, front, photo
from tests.support.rows import Rows, Shop

pytestmark = pytest.mark.timeout(600)

PRODUCTS = 6
CODED = gtin13(88_001)
"""The GTIN of the first product; the others have none."""


@dataclass(frozen=True)
class Ran:
    """`output` is standard output; `said` is everything, with the error that ended it."""

    status: int
    output: str
    said: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.splitlines()]


async def run(environment: Mapping[str, str], *arguments: object) -> Ran:
    given = [str(argument) for argument in arguments]
    result = await asyncio.to_thread(CliRunner().invoke, app, given, env=dict(environment))
    if isinstance(result.exception, AugenblickError):
        return Ran(result.exit_code, result.stdout, f"{result.output}{result.exception}")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.output)


@pytest.fixture(scope="module")
def alone(triton: LocalStack) -> dict[str, str]:
    """Triton, and no database."""
    return {"TRITON_URL": triton.environment["TRITON_URL"]}


@dataclass(frozen=True)
class Catalogue:
    shop: Shop
    environment: dict[str, str]


@pytest.fixture(scope="module")
async def catalogue(triton: LocalStack, database_url: str, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Of six products, imported as a merchant does it."""
    folder = tmp_path_factory.mktemp("catalogue")
    lines = ["product_id,gtin,title,language,price,currency,picture"]
    for number in range(PRODUCTS):
        front(number).save(folder / f"{number}.png")
        lines.append(f"p{number},{CODED if number == 0 else ''},Package {number},en,{number + 1}.50,EUR,{number}.png")
    (folder / "products.csv").write_text("\n".join(lines))
    shop = await rows.merchant("Pictures' shop")
    environment = {**triton.environment, "DATABASE_URL": database_url}
    imported = await run(environment, "catalogue", "import", folder / "products.csv", "--merchant", shop.merchant_id)
    assert imported.status == 0, imported.said
    return Catalogue(shop, environment)


def pictures(folder: Path, takes: Sequence[tuple[int | None, int]]) -> Path:
    """Photos with their manifest: the package's number, None for a shelf without any, and which take of it."""
    folder.mkdir(exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        manifest = csv.writer(file)
        manifest.writerow(["file", "product"])
        for number, take in takes:
            name = f"{'none' if number is None else number}-{take}.jpg"
            (folder / name).write_bytes(empty_shelf(take) if number is None else photo(number, take))
            manifest.writerow([name, "" if number is None else f"p{number}"])
    return folder / "manifest.csv"


# recognise


async def test_codes_are_read_without_a_catalogue_or_a_database(alone: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.jpg").write_bytes(barcode_jpeg(gtin13(7)))
    Image.open(tmp_path / "a.jpg").save(tmp_path / "deep" / "b.PNG")
    ran = await run(alone, "recognise", tmp_path, "--json", "--intent", "identify")
    assert ran.status == 0, ran.said
    assert [Path(line["file"]).name for line in ran.lines] == ["a.jpg", "b.PNG"]
    for line in ran.lines:
        assert line["decision"] == "act" and line["confidence"] == 1
        assert line["product"] == {"gtin": "0" + gtin13(7), "evidence": "code"}
        assert line["codes"][0]["gtin"] == "0" + gtin13(7) and len(line["codes"][0]["corners"]) == 4
        assert line["ms"]["codes"] > 0 and line["ms"]["all"] >= line["ms"]["codes"]


async def test_what_a_telephone_puts_behind_a_picture_hinders_no_model(alone: dict[str, str], tmp_path: Path) -> None:
    picture = barcode_jpeg(gtin13(7))
    (tmp_path / "film.jpg").write_bytes(picture + b"\0\0\0\x18ftypmp42" * 3000)
    (tmp_path / "twice.jpg").write_bytes(picture + barcode_jpeg(gtin13(8)))
    ran = await run(alone, "recognise", tmp_path, "--json", "--intent", "identify")
    assert ran.status == 0, ran.said
    assert [line["product"]["gtin"] for line in ran.lines] == ["0" + gtin13(7)] * 2


async def test_a_line_says_what_codes_say(alone: dict[str, str], tmp_path: Path) -> None:
    priced = f"221234{in_store.verifier('00349')}00349"
    for name, frame in {
        "1-link": qr_jpeg("https://shop.example/offers?id=7"),
        "2-dated": qr_jpeg("https://id.example/01/09521234543213/10/LOT7?17=291231"),
        "3-priced": barcode_jpeg(priced + ean.calc_check_digit(priced)),
    }.items():
        (tmp_path / f"{name}.jpg").write_bytes(frame)
    ran = await run(alone, "recognise", tmp_path, "--intent", "read", "--region", "DE")
    assert ran.status == 0, ran.said
    link, dated, in_shop = ran.output.splitlines()
    assert " · https://shop.example/offers?id=7 " in link
    assert "GTIN 09521234543213 · until 2029-12-31 · batch LOT7 " in dated
    assert " · in-store item 1234, 3.49 EUR " in in_shop


async def test_nothing_that_a_terminal_obeys_reaches_it(alone: dict[str, str], tmp_path: Path) -> None:
    name = "a\x1b[31m\x9b2J\u202e\nb 果汁.jpg"
    (tmp_path / name).write_bytes(barcode_jpeg(gtin13(7)))
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"no picture")
    for options in ((), ("--json",)):
        ran = await run(alone, "recognise", tmp_path, "--intent", "identify", *options)
        assert len(ran.output.splitlines()) == 2 and all(each.isprintable() for each in ran.output.replace("\n", ""))
        assert r"a\u001b[31m\u009b2J\u202e\nb 果汁.jpg" in ran.output and r"\udcff.jpg" in ran.output
    assert {Path(line["file"]).name for line in ran.lines} == {name, "\udcff.jpg"}, "it is the same JSON"


async def test_a_picture_that_cannot_be_read_has_a_line_and_the_others_too(alone: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "b.jpg").write_bytes(barcode_jpeg(gtin13(8)))
    gone = tmp_path / "gone.jpg"
    ran = await run(alone, "recognise", gone, tmp_path, "--json", "--intent", "identify")
    assert ran.status == 1
    assert [line.get("error") for line in ran.lines] == ["No such file or directory", "the picture is no JPEG, PNG or WebP", None]
    readable = await run(alone, "recognise", tmp_path, "--intent", "identify")
    assert readable.status == 1
    bad, good = readable.output.splitlines()
    assert "error" in bad and "act" in good and "0" + gtin13(8) in good


async def test_without_triton_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(barcode_jpeg(gtin13(8)))
    ran = await run({"TRITON_URL": "127.0.0.1:9"}, "recognise", tmp_path)
    assert ran.status == 1 and "augenblick up --only triton" in ran.said and ran.output == ""


async def test_a_database_without_tables_is_said_to_be_so(alone: dict[str, str], empty_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(barcode_jpeg(gtin13(8)))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "infra.cli", "recognise", str(tmp_path)),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **alone, "DATABASE_URL": empty_database_url},
    )
    _, errors = await process.communicate()
    assert process.returncode == 1 and b"`augenblick migrate` makes them" in errors and b"Traceback" not in errors


async def test_a_folder_without_pictures_is_refused(alone: dict[str, str], tmp_path: Path) -> None:
    ran = await run(alone, "recognise", tmp_path)
    assert ran.status == 1 and "no pictures" in ran.said


async def test_being_interrupted_leaves_whole_lines(alone: dict[str, str], tmp_path: Path) -> None:
    picture = barcode_jpeg(gtin13(9))
    for number in range(1500):
        (tmp_path / f"{number:03}.jpg").write_bytes(picture)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "infra.cli", "recognise", str(tmp_path), "--json", "--intent", "identify"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **alone},
        # Who runs these tests in the background may have them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None and process.stderr is not None
    first = await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest = await process.stdout.read()
    errors = await process.stderr.read()
    assert await process.wait() == 130
    written = (first + rest).decode()
    assert written.endswith("\n") and len([json.loads(line) for line in written.splitlines()]) < 1500
    assert b"Traceback" not in errors


async def test_a_terminal_is_shown_one_line_for_each_picture_and_nothing_else(alone: dict[str, str], tmp_path: Path) -> None:
    name = f"{'long' * 50}.jpg"
    (tmp_path / name).write_bytes(barcode_jpeg(gtin13(9)))
    terminal, its_end = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "infra.cli", "recognise", str(tmp_path), "--json", "--intent", "identify"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=its_end,
        stderr=its_end,
        env={**os.environ, **alone, "TERM": "xterm", "COLUMNS": "80"},
    )
    os.close(its_end)
    shown = await asyncio.to_thread(all_of, terminal)
    assert await process.wait() == 0, shown
    [line] = shown.decode().splitlines()
    assert Path(json.loads(line)["file"]).name == name


def all_of(terminal: int) -> bytes:
    """Until nobody has its other end any more."""
    with os.fdopen(terminal, "rb", buffering=0) as file:
        read = b""
        try:
            while part := file.read(65536):
                read += part
        except OSError:  # what Linux says then
            pass
        return read


async def test_a_product_is_recognised_by_its_picture_in_its_merchants_catalogue(catalogue: Catalogue, tmp_path: Path) -> None:
    pictures(tmp_path / "shelf", [(2, 1)])
    wanted = ("--catalogue", catalogue.shop.merchant_id, "--intent", "identify")
    [line] = (await run(catalogue.environment, "recognise", tmp_path / "shelf", "--json", *wanted)).lines
    first = line["product"] or line["alternatives"][0]
    assert (first["product_id"], first["title"], first["gtin"]) == ("p2", "Package 2", None)
    assert "match" in line["ms"] and line["failed_models"] == line["late_models"] == []
    unknown = await run(catalogue.environment, "recognise", tmp_path / "shelf", "--catalogue", "No such shop")
    assert unknown.status == 1 and "No merchant is named" in unknown.said


async def test_an_explanation_is_written_only_where_the_user_says(catalogue: Catalogue, tmp_path: Path) -> None:
    manifest = pictures(tmp_path / "shelf", [(1, 3), (4, 3)])
    before = sorted(tmp_path.rglob("*"))
    wanted = ("--catalogue", catalogue.shop.merchant_id, "--intent", "identify")
    await run(catalogue.environment, "recognise", manifest.parent, *wanted)
    assert sorted(tmp_path.rglob("*")) == before
    ran = await run(catalogue.environment, "recognise", manifest.parent, *wanted, "--explain", tmp_path / "seen")
    assert ran.status == 0, ran.said
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["1-1-3.jpg", "2-4-3.jpg"]
    with Image.open(tmp_path / "seen" / "1-1-3.jpg") as seen:
        whole = seen.convert("RGB")
    assert whole.width == 900 and whole.height > 700, "enlarged, with what was decided below"
    green = sum(count for count, (r, g, b) in whole.getcolors(2**24) or [] if r < 50 and g > 120 and b < 110)
    assert green > 2000, "the product's outline and the points that agree"


# catalogue evaluate


async def test_an_evaluation_counts_and_shows_its_errors(catalogue: Catalogue, tmp_path: Path) -> None:
    takes: list[tuple[int | None, int]] = [(number, take) for number in range(PRODUCTS) for take in (1, 2)]
    manifest = pictures(tmp_path / "test", [*takes, (None, 1), (None, 2)])
    # One that says another product than it shows: an error that there surely is.
    manifest.write_text(manifest.read_text().replace("3-1.jpg,p3", "3-1.jpg,p5"))
    wanted = ("catalogue", "evaluate", manifest, "--catalogue", "Pictures' shop", "--output", tmp_path / "report")
    ran = await run(catalogue.environment, *wanted, "--json")
    assert ran.status == 0, ran.said
    report = json.loads(ran.output)
    assert report["pictures"] == 14 and report["recall_at_1"] == {**report["recall_at_1"], "hits": 11, "of": 12}
    assert report["unknown"]["hits"] == report["unknown"]["of"] == 2
    assert report["precision_at_coverage"][-1]["precision"] == pytest.approx(11 / 12, abs=1e-4)
    assert 0 < report["ms"]["p50"] <= report["ms"]["p95"]
    written = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert written == ["answers.jsonl", "errors.jpg", "precision-coverage.png"]
    answers = [json.loads(line) for line in (tmp_path / "report" / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 14 and answers[6]["right"] == "p5"
    with Image.open(tmp_path / "report" / "errors.jpg") as sheet:
        assert sheet.width > 500, "photo, what was answered and what is said to be right, side by side"
        colours = len(sheet.crop((200, 10, 380, 190)).getcolors(2**24) or [])
    assert colours > 100, "the catalogue's picture of what was answered"
    # As a spreadsheet of a country that writes 1,5 saves it.
    manifest.write_text(manifest.read_text().replace(",", ";"))
    table = await run(catalogue.environment, *wanted)
    assert "R@1" in table.output and "0.917 (11 of 12)" in table.output and "p95" in table.output


async def test_pictures_that_cannot_be_used_are_named_and_not_counted(catalogue: Catalogue, tmp_path: Path) -> None:
    manifest = pictures(tmp_path / "test", [(0, 1), (1, 1)])
    (manifest.parent / "1-1.jpg").write_bytes(b"no picture")
    ran = await run(catalogue.environment, "catalogue", "evaluate", manifest, "--catalogue", "Pictures' shop", "--json")
    assert ran.status == 1 and "1-1.jpg: the picture is no JPEG, PNG or WebP" in ran.said
    assert json.loads(ran.output)["pictures"] == 1
    (manifest.parent / "0-1.jpg").unlink()
    nothing = await run(catalogue.environment, "catalogue", "evaluate", manifest, "--catalogue", "Pictures' shop", "--json")
    assert nothing.status == 1 and nothing.output == ""
    assert "No picture could be used" in nothing.said and "0-1.jpg: No such file or directory" in nothing.said


async def test_a_picture_is_no_manifest(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo(1, 1))
    for command in ("evaluate", "calibrate"):
        ran = await run(catalogue.environment, "catalogue", command, tmp_path / "a.jpg", "--catalogue", "Pictures' shop")
        assert ran.status == 1 and "a.jpg is a picture" in ran.said and ran.output == ""


# catalogue calibrate


async def calibrate(catalogue: Catalogue, manifest: Path, *options: object) -> Ran:
    wanted = ("--catalogue", catalogue.shop.merchant_id, *options)
    return await run(catalogue.environment, "catalogue", "calibrate", manifest, *wanted)


ENOUGH: list[tuple[int | None, int]] = [(number, take) for number in range(PRODUCTS) for take in range(6)]


async def test_a_calibration_promises_what_other_pictures_show_and_counts_from_then_on(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    manifest = pictures(tmp_path / "test", ENOUGH)
    wanted = ("--precision", 0.8, "--unknown-rate", 0.8, "--leave-one-out")
    promised = await calibrate(catalogue, manifest, *wanted, "--json")
    assert promised.status == 0, promised.said
    made = json.loads(promised.output)
    promise = made["thresholds"]["promise"]
    assert made["stored"] and made["unusable"] == {} and promise["pictures"] == promise["unknown_pictures"] == 18
    assert promise["precision"] >= promise["precision_at_least"] >= 0.8
    assert promise["unknown"] > 0.9 and promise["coverage"] > 0.5
    directory = Path(catalogue.environment["AUGENBLICK_CATALOGUE_DIRECTORY"])
    assert not list(directory.glob("without-*")), "the snapshots that lacked a product are gone"
    shelf = pictures(tmp_path / "shelf", [(2, 30)]).parent
    looked = ("--catalogue", catalogue.shop.merchant_id, "--intent", "identify", "--json")
    [line] = (await run(catalogue.environment, "recognise", shelf, *looked)).lines
    assert line["decision"] == "act" and line["product"]["product_id"] == "p2"
    assert line["confidence"] >= made["thresholds"]["act"]


async def test_thresholds_are_written_to_a_file_instead(catalogue: Catalogue, rows: Rows, tmp_path: Path) -> None:
    manifest = pictures(tmp_path / "test", [*ENOUGH, *((None, take) for take in range(40))])
    before, file = await rows.count("catalogue_calibrations"), tmp_path / "report" / "thresholds.json"
    ran = await calibrate(catalogue, manifest, "--precision", 0.7, "--unknown-rate", 0.5, "--output", file)
    assert ran.status == 0, ran.said
    made = Thresholds.model_validate_json(file.read_bytes())
    assert made.promise is not None and made.promise.pictures + made.promise.unknown_pictures >= 18
    assert f"written: {file}" in ran.output
    assert await rows.count("catalogue_calibrations") == before


async def test_too_few_pictures_promise_nothing_and_change_nothing(catalogue: Catalogue, rows: Rows, tmp_path: Path) -> None:
    manifest = pictures(tmp_path / "test", [(number, take) for number in range(PRODUCTS) for take in range(2)])
    before = await rows.count("catalogue_calibrations")
    ran = await calibrate(catalogue, manifest, "--leave-one-out")
    assert ran.status == 1 and "nothing was changed" in ran.said
    assert "It takes 59 pictures without an error to show it.\n" in ran.said
    assert "Only one half of the pictures counts" in ran.said
    easy = await calibrate(catalogue, manifest)
    assert easy.status == 1 and "--leave-one-out asks of each picture" in easy.said, "all were answered rightly"
    assert await rows.count("catalogue_calibrations") == before
