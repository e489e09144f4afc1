"""Questions that tell whether a server answers. Each returns when it does and raises when it does not."""

import asyncio
import urllib.request


async def tcp_answers(host: str, port: int, timeout_seconds: float = 2.0) -> None:
    async with asyncio.timeout(timeout_seconds):
        _, writer = await asyncio.open_connection(host, port)
    writer.close()


async def http_answers(url: str, timeout_seconds: float = 2.0) -> None:
    """Any status from 200 to 399 will do."""

    def ask() -> None:
        # Proxies are for the outside world; a loopback address asked through one would never answer.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(url, timeout=timeout_seconds).close()

    await asyncio.to_thread(ask)


async def kafka_answers(bootstrap_servers: str, timeout_seconds: float = 4.0) -> None:
    """The cluster names at least one broker that accepts work (in KRaft a broker is named once it is no longer fenced)."""
    from aiokafka.client import AIOKafkaClient

    host, _, port = bootstrap_servers.split(",", maxsplit=1)[0].strip().rpartition(":")
    # The client logs an error for a port nobody listens on; during a start that is not worth a line.
    await tcp_answers(host, int(port), timeout_seconds)
    client = AIOKafkaClient(
        bootstrap_servers=bootstrap_servers, client_id="augenblick-check", request_timeout_ms=int(timeout_seconds * 1000)
    )
    try:
        await client.bootstrap()
        if not client.cluster.brokers():
            raise ConnectionError("the cluster has no active broker yet")
    finally:
        await client.close()


async def postgres_answers(url: str, timeout_seconds: float = 4.0) -> None:
    """`url` is postgresql://…; the database in it must exist."""
    import psycopg

    async with asyncio.timeout(timeout_seconds):
        # SQLAlchemy's way of naming the driver is none that the driver knows.
        connection = await psycopg.AsyncConnection.connect(url.replace("postgresql+psycopg:", "postgresql:", 1))
        async with connection:
            await connection.execute("SELECT 1")


async def triton_answers(grpc_address: str, model: str, timeout_seconds: float = 4.0) -> None:
    import tritonclient.grpc.aio as triton

    client = triton.InferenceServerClient(grpc_address)
    try:
        if not await client.is_model_ready(model, client_timeout=timeout_seconds):
            raise ConnectionError(f"model {model} is not ready")
    finally:
        await client.close()
