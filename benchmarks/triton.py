"""Triton's own overhead: `python -m benchmarks.triton [CALLS]`.

8 clients, each one call after the other, send 100 KB and get them back: from a model that does nothing, on a real tritonserver
with our own options (benchmarks/triton_models); and from the peer, a gRPC server in Python (`grpc.aio`) in a process of its own
that knows bytes only. Both are called by the same client with the same bytes, a request that was made beforehand, so that what
differs is the server. The third row is the model through Triton's own client, as the platform calls it.

Rounds of both alternate; figures are over all of them.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import grpc
import numpy
import uvloop
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import aio as triton
from tritonclient.grpc import service_pb2

from benchmarks.figures import Latency
from infra.local.layout import Layout
from infra.local.ports import choose_ports
from infra.local.triton import Triton
from streams.core.supervisor import Supervisor

CLIENTS = 8
PAYLOAD = 100 * 1024
ROUNDS = 4
_WARM_UP = 400  # calls
_MODELS = Path(__file__).parent / "triton_models"
_LARGEST = [("grpc.max_send_message_length", 1 << 24), ("grpc.max_receive_message_length", 1 << 24)]

Call = Callable[[], Awaitable[object]]


async def echo_server() -> None:
    """Prints its port, and answers every call with the bytes it came with until its input ends."""

    class Echo(grpc.GenericRpcHandler):
        def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            async def answer(request: bytes, __: object) -> bytes:
                return request

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.aio.server(options=_LARGEST)
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


@asynccontextmanager
async def echo() -> AsyncIterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.triton", "echo-server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    try:
        port = await asyncio.to_thread(process.stdout.readline)
        yield f"127.0.0.1:{int(port)}"
    finally:
        process.stdin.close()
        process.wait(10)


@asynccontextmanager
async def null_model() -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(prefix="augenblick-bench-") as root:
        layout, component = Layout(Path(root)), Triton(configured={}, repository=_MODELS)
        ports = choose_ports(component.ports, layout.run / "ports.json")
        await component.prepare(layout, ports)
        async with Supervisor() as supervisor:
            await supervisor.start([component.spec()])
            yield component.environment()["TRITON_URL"]


async def round_of(call: Call, calls: int) -> list[float]:
    """Milliseconds of each call, by CLIENTS at once."""

    async def client() -> list[float]:
        samples = []
        for _ in range(calls // CLIENTS):
            began = perf_counter()
            await call()
            samples.append((perf_counter() - began) * 1000)
        return samples

    return [sample for samples in await asyncio.gather(*(client() for _ in range(CLIENTS))) for sample in samples]


def raw_request(payload: bytes) -> bytes:
    request = service_pb2.ModelInferRequest(model_name="null")
    tensor = request.inputs.add(name="IMAGE", datatype="UINT8", shape=[1, len(payload)])
    assert tensor.name
    request.raw_input_contents.append(payload)
    return request.SerializeToString()


def through_tritonclient(client: triton.InferenceServerClient, payload: bytes) -> Call:
    async def call() -> object:
        image = triton.InferInput("IMAGE", [1, len(payload)], "UINT8")
        image.set_data_from_numpy(numpy.frombuffer(payload, dtype=numpy.uint8).reshape(1, -1))
        return await client.infer("null", [image])

    return call


async def main(calls: int) -> None:
    payload = numpy.random.default_rng(5).integers(0, 256, PAYLOAD, dtype=numpy.uint8).tobytes()
    request = raw_request(payload)
    async with (
        echo() as echo_address,
        null_model() as triton_address,
        grpc.aio.insecure_channel(echo_address, options=_LARGEST) as to_echo,
        grpc.aio.insecure_channel(triton_address, options=_LARGEST) as to_triton,
    ):
        client = triton.InferenceServerClient(triton_address)
        bare, infer = to_echo.unary_unary("/bench.Echo/Echo"), to_triton.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        assert await bare(request) == request
        assert payload in await infer(request)
        ways: dict[str, Call] = {
            "bare gRPC echo": lambda: bare(request),
            "null model on Triton": lambda: infer(request),
            "the same through tritonclient": through_tritonclient(client, payload),
        }
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for call in ways.values():
            await round_of(call, _WARM_UP)
        for _ in range(ROUNDS):
            for name, call in ways.items():
                samples[name] += await round_of(call, calls // ROUNDS)
        await client.close()
    figures = [Latency(name, taken) for name, taken in samples.items()]
    table = Table(
        "", "n", "p50 ms", "p95 ms", "p99 ms", "p50 ÷ echo's", title=f"{PAYLOAD // 1024} KB there and back, {CLIENTS} clients"
    )
    for each in figures:
        percentiles = [f"{each.percentile(percent):.2f}" for percent in (50, 95, 99)]
        table.add_row(each.name, str(len(each.samples)), *percentiles, f"{each.percentile(50) / figures[0].percentile(50):.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    if sys.argv[1:] == ["echo-server"]:
        asyncio.run(echo_server())
    else:
        uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000))
