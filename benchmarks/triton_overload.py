"""More frames than a model can look at: how many are answered in time, and what becomes of the others.

    python -m benchmarks.triton_overload [--seconds N]

A model that takes 50 ms a frame gets four times the frames that it can look at, each of which has 400 ms. The peer is the same
model asked by callers that do not say when they sent a frame: then a frame is only passed over once its caller has gone.
"""

import argparse
import asyncio
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import psutil
import tritonclient.grpc.aio as triton
from rich.console import Console
from rich.table import Table
from tritonclient.utils import InferenceServerException

from infra.local.layout import Layout
from infra.local.ports import choose_ports
from infra.local.triton import Triton
from streams.core.supervisor import Supervisor

TAKES_S = 0.050
BUDGET_S = 0.400
TIMES = 4
FRAME = numpy.zeros((1, 100_000), dtype=numpy.uint8)

MODEL = f"""
import time
from vision.serving import Answer, FrameModel

class TritonPythonModel(FrameModel):
    options = {{"time_left_ms": (int, float)}}
    looked_at = 0

    def answer(self, jpeg, options, deadline):
        self.looked_at += 1
        time.sleep({TAKES_S})
        return Answer(self.looked_at)
"""

CONFIGURATION = """
name: "looks"
backend: "python"
max_batch_size: 1
input [
  { name: "IMAGE", data_type: TYPE_UINT8, dims: [ -1 ] },
  { name: "OPTIONS", data_type: TYPE_STRING, dims: [ 1 ], optional: true }
]
output [ { name: "RESULT", data_type: TYPE_STRING, dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU, count: 1 } ]
"""


@dataclass
class Outcome:
    sent: int = 0
    looked_at: int = 0
    answers_s: list[float] = field(default_factory=list)


async def ask(client: triton.InferenceServerClient, *, says_when: bool, budget_s: float = BUDGET_S) -> int:
    """How many frames the model has looked at so far."""
    options = {"time_left_ms": budget_s * 1000} | ({"sent_at_ms": time.time() * 1000} if says_when else {})
    image = triton.InferInput("IMAGE", list(FRAME.shape), "UINT8")
    image.set_data_from_numpy(FRAME)
    said = triton.InferInput("OPTIONS", [1, 1], "BYTES")
    said.set_data_from_numpy(numpy.array([[json.dumps(options).encode()]], dtype=numpy.object_))
    answer = await client.infer("looks", [image, said], client_timeout=budget_s)
    return int(answer.as_numpy("RESULT")[0, 0])


async def overload(client: triton.InferenceServerClient, seconds: float, *, says_when: bool) -> Outcome:
    outcome = Outcome()
    before = await ask(client, says_when=False, budget_s=5)

    async def one() -> None:
        start = time.perf_counter()
        try:
            await ask(client, says_when=says_when)
        except InferenceServerException:
            return
        outcome.answers_s.append(time.perf_counter() - start)

    start = time.perf_counter()
    frames = []
    # By the clock: a driver that is late sends what it owes at once.
    while (passed := time.perf_counter() - start) < seconds:
        while outcome.sent < passed * TIMES / TAKES_S:
            outcome.sent += 1
            frames.append(asyncio.create_task(one()))
        await asyncio.sleep(0.002)
    await asyncio.gather(*frames)
    outcome.looked_at = await ask(client, says_when=False, budget_s=5) - before - 1
    return outcome


async def measure(seconds: float) -> None:
    title = f"{TIMES} times more frames than the model can look at, {BUDGET_S * 1000:.0f} ms each"
    table = Table("", "sent", "looked at", "in time", "of those", "p95 ms", "memory MB", title=title)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "models" / "looks"
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text(MODEL)
        (folder / "config.pbtxt").write_text(CONFIGURATION)
        server = Triton(configured={}, repository=folder.parent)
        layout = Layout(Path(directory) / "stack")
        await server.prepare(layout, choose_ports(server.ports, layout.run / "ports.json"))
        supervisor = Supervisor()
        await supervisor.start([server.spec()])
        client = triton.InferenceServerClient(server.environment()["TRITON_URL"])
        process = psutil.Process(supervisor.status("triton").pid)
        try:
            for name, says_when in (("says when it was sent", True), ("does not (peer)", False)):
                outcome = await overload(client, seconds, says_when=says_when)
                memory = sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
                share = len(outcome.answers_s) / max(outcome.looked_at, 1)
                p95 = numpy.percentile(outcome.answers_s or [0], 95) * 1000
                row = (
                    outcome.sent,
                    outcome.looked_at,
                    len(outcome.answers_s),
                    f"{share:.0%}",
                    f"{p95:.0f}",
                    f"{memory / 1e6:.0f}",
                )
                table.add_row(name, *map(str, row))
        finally:
            await client.close()
            await supervisor.stop()
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Frames that a model cannot keep up with.")
    parser.add_argument("--seconds", type=float, default=15, metavar="N", help="for each of the two")
    asyncio.run(measure(parser.parse_args().seconds))
