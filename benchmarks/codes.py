"""Reading codes: `python -m benchmarks.codes accuracy|hints|latency [FRAMES]`.

accuracy: generated frames (infra/sandbox/pictures/code_frames.py), FRAMES of each symbology in each half, and as many that show
things that look like codes and are none. The peer is zxing-cpp's plain `read_barcodes` on the same pixels. What is set in
infra/triton/vision was tuned on the seeds 0 to 149; the frames here have seeds from 1,000 on.

hints: FRAMES of each symbology with codes that can hardly be read, for one reason each. Of those that are not read: how often it
is told that a code is there, and what the wearer is asked to do. The peer is zxing-cpp's plain call that returns its errors too.
Blinds, grilles and striped cloth hold no code: none should be seen.

latency: one client asks the model `codes` on a real tritonserver for a 640×480 JPEG with an EAN-13, one frame after the other.
The peer, in turns with it, is zxing-cpp's plain call in this process, with the JPEG decoded by OpenCV.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time

import cv2
import numpy
import uvloop
import zxingcpp
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tritonclient.grpc import aio as triton
from zxingcpp import BarcodeFormat

from benchmarks.figures import Latency, print_latencies
from infra.local.stack import LocalStack
from infra.sandbox import sessions
from infra.sandbox.pictures.code_frames import EASY, HARD, SYMBOLOGIES, Picture, check_digit, draw
from infra.triton.vision import codes, frames
from infra.triton.vision.options import Deadline
from infra.triton.vision.quality import of_grey
from schemas.recognition import Intent, Unclear
from streams.sightings.codes import Read
from streams.sightings.service import Frame, Seen, decide
from streams.sightings.triton import Quality

FIRST_SEED = 1_000
_TIME_LEFT_MS = 400.0  # of a glance's deadline; the model itself stops earlier
_WARM_UP = 30
_HALVES = {"easy": EASY, "hard": HARD}
_UNREADABLE = {
    "too far": replace(EASY, module=(0.5, 1.1)),
    "blurred": replace(EASY, blur=(0.9, 1.6)),
    "a third cut off": EASY,
    "no code, look-alikes": EASY,
}
_STRIPED = ("blinds", "grille", "pattern", "cloth")


@dataclass
class Tally:
    frames: int = 0
    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {"plain": [], "ours": []})

    def add(self, reader: str, there: Collection[str], told: list[str], seconds: float) -> None:
        """Right is the text of a code that is there, or none where there is none. Any other text is wrong."""
        self.right[reader] += any(each in there for each in told) if there else not told
        self.wrong[reader] += sum(each not in there for each in told)
        self.milliseconds[reader].append(seconds * 1000)


def accuracy(count: int) -> None:
    cv2.setNumThreads(1)
    table = Table("half", "code", "n", "plain %", "ours %", "points", "wrong: plain", "ours", "ms p50: plain", "ours")
    for half, hardness in _HALVES.items():
        total, tallies = Tally(), {symbology: Tally() for symbology in (*SYMBOLOGIES, None)}
        for symbology, tally in tallies.items():
            for seed in track(range(FIRST_SEED, FIRST_SEED + count), f"{half} {symbology or 'no code'}", transient=True):
                frame = draw(seed, symbology, hardness)
                grey = frames.decode(frame.jpeg, grey=True)
                _read_twice(grey, [frame.text] if frame.text else [], [tally, total] if symbology else [tally])
            _row(table, half, symbology or "no code", tally)
        _row(table, half, "all codes", total)
        table.add_section()
    beside = Tally()
    for seed in track(range(FIRST_SEED, FIRST_SEED + count), "two beside each other", transient=True):
        _read_twice(*_two_beside_each_other(seed), [beside])
    _row(table, "shelf", "two codes", beside)
    table.caption = f"seeds from {FIRST_SEED:,}; processor time; a reading that is not the frame's text is wrong"
    Console(width=130).print(table)


def _read_twice(grey: Picture, there: Collection[str], tallies: Iterable[Tally]) -> None:
    began = process_time()
    plain = [code.text for code in zxingcpp.read_barcodes(grey)]
    between = process_time()
    ours = [read.text for read in codes.read(grey, Deadline(_TIME_LEFT_MS)) if read.valid]
    ended = process_time()
    for tally in tallies:
        tally.frames += 1
        tally.add("plain", there, plain, between - began)
        tally.add("ours", there, ours, ended - between)


def _two_beside_each_other(seed: int) -> tuple[Picture, list[str]]:
    """Two EAN-13 or EAN-8 codes, 7 to 40 modules apart, as labels on the edge of a shelf, a little turned; and their texts."""
    chance = numpy.random.default_rng(seed)
    frame, texts, x = numpy.full((480, 640), 235, numpy.uint8), list[str](), 50
    for _ in range(2):
        format, length = (BarcodeFormat.EAN13, 13) if chance.random() < 0.8 else (BarcodeFormat.EAN8, 8)
        digits = "".join(map(str, chance.integers(0, 10, length - 1)))
        texts.append(digits + check_digit(digits))
        image = numpy.asarray(zxingcpp.create_barcode(texts[-1], format).to_image(scale=2, add_quiet_zones=False))
        frame[150 : 150 + image.shape[0], x : x + image.shape[1]] = image
        x += image.shape[1] + 2 * int(chance.integers(7, 41))
    return _as_seen(frame, chance.uniform(-8, 8), chance), texts


def _striped(kind: str, seed: int) -> Picture:
    """What has parallel edges all along, as a code does, and is none."""
    chance = numpy.random.default_rng(seed)
    step = int(chance.integers(8, 20))
    if kind == "cloth":  # stripes of any widths
        widths = [int(width) for width in chance.integers(4, 14, 120)]
    elif kind == "pattern":  # some stripes of any widths, again and again
        widths = [int(width) for width in chance.integers(3, 12, 2 * int(chance.integers(2, 4)))]
    elif kind == "grille":
        widths = [max(2, step // 4), step]
    else:
        widths = [step // 2, step - step // 2]
    tones = [tone for place, width in enumerate(widths) for tone in [60 + 140 * (place % 2)] * width]
    frame = numpy.full((480, 640), 200, numpy.uint8)
    frame[80:400, 110:530] = numpy.resize(tones, 420)
    return _as_seen(frame, chance.uniform(0, 360), chance)


def _as_seen(frame: Picture, turn: float, chance: numpy.random.Generator) -> Picture:
    """Turned by so many degrees, a little blurred, with noise."""
    around = cv2.getRotationMatrix2D((frame.shape[1] / 2, frame.shape[0] / 2), turn, 1)
    turned = cv2.warpAffine(frame, around, frame.shape[::-1], borderValue=int(frame[0, 0]))
    blurred = cv2.GaussianBlur(turned, (0, 0), chance.uniform(0.6, 0.9))
    return numpy.asarray(numpy.clip(blurred + chance.normal(0, 6, blurred.shape), 0, 255), numpy.uint8)


def _row(table: Table, half: str, what: str, tally: Tally) -> None:
    plain, ours = (100 * tally.right[reader] / tally.frames for reader in ("plain", "ours"))
    times = [f"{numpy.median(tally.milliseconds[reader]):.1f}" for reader in ("plain", "ours")]
    wrong = [str(tally.wrong[reader]) for reader in ("plain", "ours")]
    table.add_row(half, what, str(tally.frames), f"{plain:.1f}", f"{ours:.1f}", f"{ours - plain:+.1f}", *wrong, *times)


def hints(count: int) -> None:
    cv2.setNumThreads(1)
    table = Table("frames", "n", "read", "unread", "seen: zxing-cpp", "ours", "asked of the wearer")
    for why in (*_UNREADABLE, *(f"no code, {kind}" for kind in _STRIPED)):
        told, said = Counter[str](), Counter[str]()
        for grey in track(_hardly_readable(why, count), why, total=None, transient=True):
            told["n"] += 1
            reads = codes.read(grey, Deadline(_TIME_LEFT_MS))
            if any(read.valid for read in reads):
                told["read"] += 1
                continue
            told["peer"] += any(not code.valid for code in zxingcpp.read_barcodes(grey, return_errors=True))
            told["ours"] += bool(reads)
            unread = tuple(Read.model_validate(read.as_json()) for read in reads)
            quality = Quality.model_validate(asdict(of_grey(grey)))
            seen = Seen(unread=unread, quality=quality, size=(grey.shape[1], grey.shape[0]), models=("codes",))
            answer = decide(Frame("", "0" * 64, Intent.PAY), seen)
            said[answer.reason if isinstance(answer, Unclear) else "?"] += 1
        numbers = (told["n"], told["read"], told["n"] - told["read"], told["peer"], told["ours"])
        table.add_row(why, *map(str, numbers), ", ".join(f"{reason} {times}" for reason, times in said.most_common()))
    Console(width=130).print(table)


def _hardly_readable(why: str, count: int) -> Iterator[Picture]:
    kind = why.removeprefix("no code, ")
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        if kind in _STRIPED:
            yield _striped(kind, seed)
            continue
        for symbology in (None,) if why.startswith("no code") else SYMBOLOGIES:
            frame = draw(seed, symbology, _UNREADABLE[why])
            grey = frames.decode(frame.jpeg, grey=True)
            yield _cut_off(grey, frame.corners) if why.endswith("cut off") and frame.corners is not None else grey


def _cut_off(grey: Picture, corners: Picture) -> Picture:
    """The frame moved to the left, so that a third of the code is no longer in it."""
    left, right = int(corners[:, 0].min()), int(corners[:, 0].max())
    moved = max(0, left) + (right - left) // 3
    return numpy.hstack([grey[:, moved:], grey[:, -1:].repeat(moved, axis=1)])


async def latency(count: int) -> None:
    cv2.setNumThreads(1)
    jpeg = sessions.picture("milk")
    samples: dict[str, list[float]] = {"triton": [], "plain": []}
    with tempfile.TemporaryDirectory(prefix="augenblick-bench-") as root:
        async with LocalStack(Path(root), components=("triton",)) as stack:
            client = triton.InferenceServerClient(stack.environment["TRITON_URL"])
            # In turns, so that whatever else the machine does falls on both.
            for _ in range(_WARM_UP + count):
                began = perf_counter()
                await _ask(client, jpeg)
                between = perf_counter()
                pixels = cv2.imdecode(numpy.frombuffer(jpeg, dtype=numpy.uint8), cv2.IMREAD_GRAYSCALE)
                assert pixels is not None
                zxingcpp.read_barcodes(pixels)
                samples["plain"].append((perf_counter() - between) * 1000)
                samples["triton"].append((between - began) * 1000)
            await client.close()
    ours, plain = (samples[name][_WARM_UP:] for name in ("triton", "plain"))
    title = f"`codes` on a 640×480 JPEG of {len(jpeg) // 1024} KB, one client"
    print_latencies(title, Latency("through Triton", ours), Latency("zxing-cpp's plain call, in process", plain))


async def _ask(client: triton.InferenceServerClient, jpeg: bytes) -> None:
    image = triton.InferInput("IMAGE", [1, len(jpeg)], "UINT8")
    image.set_data_from_numpy(numpy.frombuffer(jpeg, dtype=numpy.uint8).reshape(1, -1))
    answer = await client.infer("codes", [image])
    assert b"EAN13" in answer.as_numpy("RESULT").reshape(-1)[0]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["accuracy", *given]:
            accuracy(int(given[0]) if given else 200)
        case ["hints", *given]:
            hints(int(given[0]) if given else 60)
        case ["latency", *given]:
            uvloop.run(latency(int(given[0]) if given else 500))
        case _:
            sys.exit(__doc__)
