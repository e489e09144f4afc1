"""Reading codes: `python -m benchmarks.codes accuracy [FRAMES]`, `python -m benchmarks.codes latency [FRAMES]`.

accuracy: generated frames (infra/sandbox/pictures/code_frames.py), FRAMES of each symbology in each half, and as many that show
things that look like codes and are none. The peer is zxing-cpp's plain `read_barcodes` on the same pixels. What is set in
infra/triton/vision was tuned on the seeds 0 to 149; the frames here have seeds from 1,000 on.

latency: one client asks the model `codes` on a real tritonserver for a 640×480 JPEG with an EAN-13, one frame after the other.
The peer, in turns with it, is zxing-cpp's plain call in this process, with the JPEG decoded by OpenCV.
"""

import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
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

from benchmarks.figures import Latency, print_latencies
from infra.local.stack import LocalStack
from infra.sandbox import sessions
from infra.sandbox.pictures.code_frames import EASY, HARD, SYMBOLOGIES, draw
from infra.triton.vision import codes, frames
from infra.triton.vision.options import Deadline

FIRST_SEED = 1_000
_TIME_LEFT_MS = 400.0  # of a glance's deadline; the model itself stops earlier
_WARM_UP = 30
_HALVES = {"easy": EASY, "hard": HARD}


@dataclass
class Tally:
    frames: int = 0
    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {"plain": [], "ours": []})

    def add(self, reader: str, text: str | None, told: list[str], seconds: float) -> None:
        """Right is the text of the code that is there, or none where there is none. Any other text is wrong."""
        self.right[reader] += (text in told) if text else not told
        self.wrong[reader] += sum(each != text for each in told)
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
                began = process_time()
                plain = [code.text for code in zxingcpp.read_barcodes(grey)]
                between = process_time()
                ours = [read.text for read in codes.read(grey, Deadline(_TIME_LEFT_MS)) if read.valid]
                ended = process_time()
                for each in (tally, total) if symbology else (tally,):
                    each.frames += 1
                    each.add("plain", frame.text, plain, between - began)
                    each.add("ours", frame.text, ours, ended - between)
            _row(table, half, symbology or "no code", tally)
        _row(table, half, "all codes", total)
        table.add_section()
    table.caption = f"seeds from {FIRST_SEED:,}; processor time; a reading that is not the frame's text is wrong"
    Console(width=130).print(table)


def _row(table: Table, half: str, what: str, tally: Tally) -> None:
    plain, ours = (100 * tally.right[reader] / tally.frames for reader in ("plain", "ours"))
    times = [f"{numpy.median(tally.milliseconds[reader]):.1f}" for reader in ("plain", "ours")]
    wrong = [str(tally.wrong[reader]) for reader in ("plain", "ours")]
    table.add_row(half, what, str(tally.frames), f"{plain:.1f}", f"{ours:.1f}", f"{ours - plain:+.1f}", *wrong, *times)


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
        case ["latency", *given]:
            uvloop.run(latency(int(given[0]) if given else 500))
        case _:
            sys.exit(__doc__)
