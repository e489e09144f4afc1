"""What it costs to ask the model `embedder` from within another model: `python -m benchmarks.embedder MANIFEST [CALLS]`.

A model of a real tritonserver, in the place of `match`, embeds pictures of the manifest's size one after the other, in turns: by
asking (vision/neighbours.py), and with the same embedder loaded into its own process, the peer. Once as fast as it can, and once
with so much to compute in between as a frame's extraction takes: where all cores are in use, whoever waits has to queue for one.
"""

import argparse
import asyncio
import json
import shutil
import tempfile
from pathlib import Path

import numpy
from tritonclient.grpc import aio as triton

from benchmarks.figures import Latency, print_latencies
from infra.local.layout import Layout
from infra.local.ports import choose_ports
from infra.local.triton import Triton
from infra.triton.server import EMBEDDER, EMBEDDER_MANIFEST, MODEL_REPOSITORY
from infra.triton.vision.embedder import read_manifest
from streams.core.supervisor import Supervisor

COMPUTING_MS = (0, 60)

CALLER = """
import json
import os
import time
from pathlib import Path
import numpy as np
import triton_python_backend_utils as triton
from vision import embedder, neighbours

class TritonPythonModel:
    def initialize(self, args):
        manifest = embedder.configured()
        self.ways = {"asked": neighbours.served_embedder(), "in process": embedder.load(manifest)}

    def execute(self, requests):
        return [self.answer(*triton.get_input_tensor_by_name(request, "ASKED").as_numpy()[0]) for request in requests]

    def answer(self, calls, computing_ms, height, width):
        random = np.random.default_rng(1)
        taken = {name: [] for name in self.ways}
        for _ in range(calls):
            batch = random.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
            for name, ours in self.ways.items():
                ends = time.process_time() + computing_ms / 1000
                while time.process_time() < ends:
                    random.random(10_000).sum()
                began = time.perf_counter()
                ours.embed_resized(batch)
                taken[name].append((time.perf_counter() - began) * 1000)
        result = np.array([[json.dumps(taken).encode()]], np.object_)
        return triton.InferenceResponse(output_tensors=[triton.Tensor("RESULT", result)])
"""
CONFIGURATION = """
name: "caller"
backend: "python"
max_batch_size: 1
input [ { name: "ASKED", data_type: TYPE_INT64, dims: [ 4 ] } ]
output [ { name: "RESULT", data_type: TYPE_STRING, dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU, count: 1 } ]
"""


async def measure(manifest: Path, calls: int) -> None:
    stated = read_manifest(manifest)
    with tempfile.TemporaryDirectory(prefix="augenblick-bench-") as directory:
        repository = Path(directory) / "models"
        (repository / "caller" / "1").mkdir(parents=True)
        (repository / "caller" / "1" / "model.py").write_text(CALLER)
        (repository / "caller" / "config.pbtxt").write_text(CONFIGURATION)
        shutil.copytree(MODEL_REPOSITORY / EMBEDDER, repository / EMBEDDER)
        server = Triton(configured={EMBEDDER_MANIFEST: str(manifest)}, repository=repository)
        layout = Layout(Path(directory) / "stack")
        await server.prepare(layout, choose_ports(server.ports, layout.run / "ports.json"))
        async with Supervisor() as supervisor:
            await supervisor.start([server.spec()])
            client = triton.InferenceServerClient(server.environment()["TRITON_URL"])
            for computing_ms in COMPUTING_MS:
                asked = triton.InferInput("ASKED", [1, 4], "INT64")
                asked.set_data_from_numpy(numpy.array([[calls, computing_ms, stated.height, stated.width]], numpy.int64))
                answer = await client.infer("caller", [asked])
                ours, peer = (Latency(name, taken) for name, taken in json.loads(answer.as_numpy("RESULT")[0, 0]).items())
                print_latencies(f"{stated.id}: one picture, {computing_ms} ms of computing before each", ours, peer)
            await client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What asking the model `embedder` costs.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("calls", type=int, nargs="?", default=200)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.manifest.absolute(), arguments.calls))
