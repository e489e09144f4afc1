"""What Triton's queue settings cost: requests that sleep in the queue of a model that has nothing to do.

    python -m benchmarks.triton_queue [--requests N]

A model that waits 0, 1 or 2 ms is served under every kind of queue setting, with one instance and with two, and asked by four
clients, each of which waits for its answer and asks again. The peer is the same model without dynamic batching, in the same run.
A request that takes more than SLEPT_MS has slept: tritonserver's batcher looks again after 500 ms when nobody woke it.
"""

import argparse
import asyncio
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy
import tritonclient.grpc.aio as triton
from rich.console import Console
from rich.table import Table

from infra.local.layout import Layout
from infra.local.ports import choose_ports
from infra.local.triton import Triton
from streams.core.supervisor import Supervisor

FRAME_BYTES = 100_000
CLIENTS = 4
SLEPT_MS = 300.0

MODEL = """
import time
import numpy
import triton_python_backend_utils as triton

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            time.sleep(int(triton.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1)[0]) / 1000)
            result = numpy.full((1, 1), b"x", dtype=object)
            answers.append(triton.InferenceResponse(output_tensors=[triton.Tensor("RESULT", result)]))
        return answers
"""

CONFIGURATION = """
name: "{name}"
backend: "python"
max_batch_size: {batch}
input [ {{ name: "IMAGE", data_type: TYPE_UINT8, dims: [ -1 ] }} ]
output [ {{ name: "RESULT", data_type: TYPE_STRING, dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU, count: {instances} }} ]
{scheduling}
"""

TIMEOUT = "timeout_action: REJECT default_timeout_microseconds: 2000000"
SCHEDULING = {
    "no dynamic batching": "",
    "dynamic batching": "dynamic_batching { }",
    "… and a delay": "dynamic_batching { max_queue_delay_microseconds: 2000 }",
    "… queue size": "dynamic_batching { default_queue_policy { max_queue_size: 64 } }",
    "… queue timeout": f"dynamic_batching {{ default_queue_policy {{ {TIMEOUT} }} }}",
    "… request's timeout": "dynamic_batching { default_queue_policy { timeout_action: REJECT allow_timeout_override: true } }",
    "… priorities": "dynamic_batching { priority_levels: 2 default_priority_level: 2 }",
    "… delay, timeout, size": (
        f"dynamic_batching {{ max_queue_delay_microseconds: 2000 default_queue_policy {{ {TIMEOUT} max_queue_size: 64 }} }}"
    ),
}


@dataclass(frozen=True)
class Variant:
    title: str
    instances: int
    batch: int
    scheduling: str

    @property
    def name(self) -> str:
        return f"variant_{list(SCHEDULING).index(self.title)}_{self.instances}_{self.batch}"


VARIANTS = [
    Variant(title, instances, batch, scheduling)
    for batch in (1, 8)
    for instances in (1, 2)
    for title, scheduling in SCHEDULING.items()
]


async def ask(url: str, name: str, requests: int) -> list[float]:
    """Milliseconds of each request."""
    client = triton.InferenceServerClient(url)
    taken: list[float] = []

    async def one_after_the_other(seed: int) -> None:
        waits = random.Random(seed)
        frame = numpy.zeros((1, FRAME_BYTES), dtype=numpy.uint8)
        for _ in range(requests // CLIENTS):
            frame[0, 0] = waits.choice((0, 1, 2))
            image = triton.InferInput("IMAGE", list(frame.shape), "UINT8")
            image.set_data_from_numpy(frame)
            start = time.perf_counter()
            await client.infer(name, [image], client_timeout=10)
            taken.append((time.perf_counter() - start) * 1e3)

    await asyncio.gather(*(one_after_the_other(seed) for seed in range(CLIENTS)))
    await client.close()
    return taken


async def measure(requests: int) -> None:
    table = Table("batch", "instances", "scheduling", "n", "p50 ms", "p99 ms", "slept", "p50 ÷ none", title="Queue settings")
    with tempfile.TemporaryDirectory() as directory:
        repository = Path(directory) / "models"
        for variant in VARIANTS:
            (repository / variant.name / "1").mkdir(parents=True)
            (repository / variant.name / "1" / "model.py").write_text(MODEL)
            text = CONFIGURATION.format(
                name=variant.name, batch=variant.batch, instances=variant.instances, scheduling=variant.scheduling
            )
            (repository / variant.name / "config.pbtxt").write_text(text)
        server = Triton(configured={}, repository=repository)
        layout = Layout(Path(directory) / "stack")
        await server.prepare(layout, choose_ports(server.ports, layout.run / "ports.json"))
        supervisor = Supervisor()
        await supervisor.start([server.spec()])
        try:
            peer = 0.0
            for variant in VARIANTS:
                taken = await ask(server.environment()["TRITON_URL"], variant.name, requests)
                p50, p99 = numpy.percentile(taken, (50, 99))
                peer = peer if variant.scheduling else p50
                slept = sum(each > SLEPT_MS for each in taken)
                row = (variant.batch, variant.instances, variant.title, len(taken), f"{p50:.1f}", f"{p99:.1f}", slept)
                table.add_row(*map(str, row), f"{p50 / peer:.2f}")
        finally:
            await supervisor.stop()
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What Triton's queue settings cost.")
    parser.add_argument("--requests", type=int, default=2000, metavar="N", help="for each setting")
    asyncio.run(measure(parser.parse_args().requests))
