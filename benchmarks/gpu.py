"""What a GPU is for: `python -m benchmarks.gpu [PRODUCTS …]`, on a machine with torch, NumPy and OpenCV; nothing of the platform
is needed.

dense      one frame's 512 points against every point (500 each) of 10^4 and 10^5 products, as `match` does it there
           (vision/dense.py), in batches of several sizes. Limits measured in the same run: the matrix product
           alone, nothing done to its result, and a copy of so many numbers through the GPU's memory. Bars: 10 and 60 ms a frame.
embedder   a ViT-B/16 (random weights: speed does not depend on them) as somebody would bring it along: TorchScript with a
           manifest, loaded by vision/embedder.py, which holds it against its golden vector; then pictures of its size, UINT8 in
           the processor's memory, through `Embedder` and `match`'s first stage to the best 50 of 10^5 products, which are in the
           processor's memory again. In batches as the profile `gpu` has them, and larger; by one instance, and by two at once.
           Limits measured in the same run: the model alone, compiled by torch, its pictures on the GPU already, and the GPU's
           own large matrix product in the same precision. Bar: 5,000 images/s.

Before anything is timed, the answers on the GPU are held against NumPy's. On a machine without a GPU the same is done in small on
the CPU, and no time is a result.
"""

import hashlib
import itertools
import json
import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import cv2
import numpy as np

from infra.triton.vision import dense as matching
from infra.triton.vision.dense import DenseMatcher
from infra.triton.vision.embedder import Embedder, load
from infra.triton.vision.index import ExactEmbeddings

POINTS, LENGTH = 500, 128
FRAME_POINTS = matching.POINTS_PER_FRAME
BATCHES = (1 << 25, 1 << 27, 1 << 29, 1 << 31)
DENSE_BARS_MS = {10_000: 10.0, 100_000: 60.0}
IMAGES_BAR = 5_000
SIDE, WIDTH, EMBEDDINGS, SHORTLIST = 224, 768, 100_000, 50
IMAGE_BATCHES, INSTANCES = (64, 256), (1, 2)
GFLOP_PER_IMAGE = 35.2  # ViT-B/16: 17.6 billion multiplications and additions
REPEATS = 20


def timed_ms(torch: Any, work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median of several runs, by the GPU's own clock where there is one."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            started, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            started.record()
            work()
            ended.record()
            ended.synchronize()
            times.append(started.elapsed_time(ended))
        else:
            begun = perf_counter()
            work()
            times.append((perf_counter() - begun) * 1000)
    return float(median(times))


def random_descriptors(random: np.random.Generator, *shape: int) -> Any:
    raw = np.sqrt(random.gamma(0.4, size=(*shape, LENGTH)))
    return np.clip(np.rint(raw / np.linalg.norm(raw, axis=-1, keepdims=True) * 512), 0, 255).astype(np.uint8)


def check_dense(torch: Any, device: str) -> None:
    """The same scores as on NumPy, within what half precision rounds; and the product shown comes first."""
    random = np.random.default_rng(1)
    pictures = [random_descriptors(random, count) for count in (40, 0, 500, 300, *[100] * 60)]
    noise = random.normal(0, 6, (200, LENGTH))
    frame = np.concatenate([np.clip(pictures[3][:200] + noise, 0, 255).astype(np.uint8), random_descriptors(random, 300)])
    expected = DenseMatcher.of(pictures).scores(frame)
    actual = DenseMatcher.of(pictures, library=torch, device=device).scores(frame)
    error = float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
    if not (error < 2e-2 and int(np.argmax(actual)) == 3):
        raise SystemExit(f"dense: the scores on {device} differ from NumPy's by {error:.4f} of their length")
    print(f"dense: scores on {device} are NumPy's, within {error:.1e}")


def dense(torch: Any, device: str, products: int, bar_ms: float | None) -> None:
    # Made where they are needed: 10^5 products are 13 GB. Several frames in turn, so that no run finds the last one's in a cache.
    references = torch.empty((products, POINTS, LENGTH), dtype=torch.float16, device=device)
    for start in range(0, products, 1000):
        part = references[start : start + 1000]
        raw = torch.rand(part.shape, device=device) ** 3
        part.copy_(torch.round(raw / torch.linalg.vector_norm(raw, dim=-1, keepdim=True) * 512).clip(0, 255) / 512)
    matcher = DenseMatcher(references, library=torch, device=device)
    random = np.random.default_rng(2)
    frames = [random_descriptors(random, FRAME_POINTS) for _ in range(4)]
    turn = itertools.count()
    configured = matching.MOST_PRODUCTS["cuda"]
    by_batch = {}
    for size in BATCHES if device == "cuda" else ():
        matching.MOST_PRODUCTS["cuda"] = size
        by_batch[size] = timed_ms(torch, lambda: matcher.scores(frames[next(turn) % len(frames)]))
        print(f"dense: {products:,} products, {size:,} dot products at once: {by_batch[size]:.1f} ms")
    matching.MOST_PRODUCTS["cuda"] = configured
    ours_ms = timed_ms(torch, lambda: matcher.scores(frames[next(turn) % len(frames)]))

    frame = torch.tensor(frames[0], device=device).to(torch.float16) / 512
    flat = references.reshape(-1, LENGTH)
    step = max(1, (1 << 30 if device == "cuda" else 1 << 22) // FRAME_POINTS)
    result = torch.empty((FRAME_POINTS, min(step, len(flat))), dtype=torch.float16, device=device)

    def product_alone() -> None:
        for begin in range(0, len(flat), step):
            part = flat[begin : begin + step]
            torch.matmul(frame, part.T, out=result if len(part) == result.shape[1] else None)

    product_ms = timed_ms(torch, product_alone)
    other = torch.empty_like(result)
    copy_ms = timed_ms(torch, lambda: other.copy_(result)) * len(flat) / result.shape[1]
    bar = f"; bar {bar_ms:.0f} ms: {'reached' if ours_ms <= bar_ms else 'MISSED'}" if bar_ms else ""
    print(
        f"dense: {products:,} products: {ours_ms:.1f} ms a frame{bar}; the product alone {product_ms:.1f} ms (ratio "
        f"{ours_ms / product_ms:.2f}), its result copied {copy_ms:.1f} ms"
    )


def vision_transformer(torch: Any, depth: int, width: int = WIDTH, heads: int = 12, patch: int = 16, side: int = SIDE) -> Any:
    """ViT-B/16 by its sizes (Dosovitskiy et al., 2021), where `depth` is 12: UINT8 [N, side, side, 3] → FP32 [N, width] of unit
    length."""
    functional = torch.nn.functional

    class Layer(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.before_attention, self.before_mlp = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
            self.query_key_value, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
            self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

        def forward(self, tokens: Any) -> Any:
            count, length, _ = tokens.shape
            parts = self.query_key_value(self.before_attention(tokens)).reshape(count, length, 3, heads, width // heads)
            query, key, value = parts.permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(count, length, width)
            tokens = tokens + self.out(seen)
            return tokens + self.down(functional.gelu(self.up(self.before_mlp(tokens))))

    class Transformer(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.patches = torch.nn.Conv2d(3, width, patch, patch)
            self.first = torch.nn.Parameter(torch.randn(1, 1, width) / math.sqrt(width))
            self.places = torch.nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, width) / math.sqrt(width))
            self.layers = torch.nn.Sequential(*(Layer() for _ in range(depth)))
            self.norm = torch.nn.LayerNorm(width)

        def forward(self, images: Any) -> Any:
            kind = self.first.dtype
            pixels = images.permute(0, 3, 1, 2).to(kind) / 127.5 - 1
            tokens = self.patches(pixels).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.first.expand(tokens.shape[0], -1, -1), tokens], dim=1) + self.places
            return functional.normalize(self.norm(self.layers(tokens))[:, 0].float(), dim=1)

    return Transformer().eval()


def brought_along(torch: Any, model: Any, kind: Any, device: str, directory: Path) -> Embedder:
    """`model`, in the precision `kind`, as a TorchScript file with its manifest. The golden vector is what the model answers on
    the CPU in full precision, so that loading it here shows that it answers the same on `device`."""
    picture = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    cv2.imwrite(str(directory / "golden.png"), picture)
    shown = torch.from_numpy(np.ascontiguousarray(picture[None, :, :, ::-1]))
    with torch.inference_mode():
        (directory / "golden.json").write_text(json.dumps(model(shown)[0].tolist()))
    model.to(device, kind)
    with torch.no_grad():
        torch.jit.trace(model, shown.to(device), check_trace=False).save(str(directory / "model.pt"))
    stated = {
        "id": "vit-b16-of-random-weights",
        "file": "model.pt",
        "kind": "torchscript",
        "sha256": hashlib.sha256((directory / "model.pt").read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
        "width": SIDE,
        "height": SIDE,
        "dimension": WIDTH,
        "golden_picture": "golden.png",
        "golden_vector": "golden.json",
        "tolerance": 0.02,
    }
    manifest = directory / "manifest.toml"
    manifest.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in stated.items()))
    return load(manifest, device=device)


def embedder(torch: Any, device: str) -> None:
    on_gpu = device != "cpu"
    kind = torch.bfloat16 if on_gpu else torch.float32
    known, depth = (EMBEDDINGS, 12) if on_gpu else (1000, 1)
    torch.manual_seed(0)
    model = vision_transformer(torch, depth)
    with TemporaryDirectory() as directory:
        ours = brought_along(torch, model, kind, device, Path(directory))
    random = np.random.default_rng(4)
    catalogue = random.standard_normal((known, WIDTH)).astype(np.float32)
    catalogue /= np.linalg.norm(catalogue, axis=1, keepdims=True)
    pictures = random.integers(0, 256, (max(IMAGE_BATCHES) if on_gpu else 4, SIDE, SIDE, 3), dtype=np.uint8)
    # One dark and one bright picture are in the catalogue: they have to come first, or nothing else matters.
    pictures[0] //= 4
    pictures[1] = 255 - pictures[1] // 4
    catalogue[:2] = ours.embed_resized(pictures[:2])
    stage = ExactEmbeddings(torch.from_numpy(catalogue).to(device, torch.float16), library=torch)
    found = [row[0] for row in stage.shortlists(ours.embed_resized(pictures[:2]), SHORTLIST)]
    if found != [0, 1]:
        raise SystemExit(f"embedder: on {device} the pictures of products 0 and 1 are taken for {found}")
    if not on_gpu:
        print("embedder: one layer of it runs and finds what it knows; its speed on a CPU is not a result")
        return
    alone = compiled_rate(torch, model, pictures)
    side = 8192
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    limit = 2 * side**3 / timed_ms(torch, lambda: left @ right) / 1e9
    print(
        f"embedder: the model alone {alone:,.0f} images/s: {alone * GFLOP_PER_IMAGE / 1e3:.0f} TFLOP/s, "
        f"a large product {limit:.0f} (ratio {alone * GFLOP_PER_IMAGE / 1e3 / limit:.2f})"
    )
    for batch, instances in itertools.product(IMAGE_BATCHES, INSTANCES):
        rate = through_the_first_stage(ours, stage, pictures[:batch], instances)
        print(
            f"embedder: {rate:,.0f} images/s to a shortlist from {known:,}, in batches of {batch}, {instances} at once; "
            f"bar {IMAGES_BAR:,}: {'reached' if rate >= IMAGES_BAR else 'MISSED'}; of the model alone {rate / alone:.2f}"
        )


def through_the_first_stage(ours: Embedder, stage: ExactEmbeddings, batch: np.ndarray[Any, Any], instances: int) -> float:
    """Images a second, by the clock on the wall: what goes in and comes out is in the processor's memory."""

    def work(times: int) -> None:
        for _ in range(times):
            stage.shortlists(ours.embed_resized(batch), SHORTLIST)

    with ThreadPoolExecutor(instances) as threads:
        list(threads.map(work, [3] * instances))
        begun = perf_counter()
        list(threads.map(work, [REPEATS] * instances))
        return len(batch) * REPEATS * instances / (perf_counter() - begun)


def compiled_rate(torch: Any, model: Any, pictures: np.ndarray[Any, Any]) -> float:
    """Images a second of the model alone, as fast as torch makes it."""
    images = torch.from_numpy(pictures).to("cuda")
    running = torch.compile(model)
    with torch.inference_mode():
        return len(pictures) / timed_ms(torch, lambda: running(images)) * 1000


def main(products: list[int]) -> None:
    try:
        import torch  # type: ignore[import-not-found]
    except ImportError:
        raise SystemExit(
            "torch is not installed here. Run this on a machine with a GPU, in an environment that has torch"
        ) from None
    if not torch.cuda.is_available():
        print("There is no GPU here: only correctness is checked, in small.")
        check_dense(torch, "cpu")
        dense(torch, "cpu", 20, None)
        embedder(torch, "cpu")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    check_dense(torch, "cuda")
    for count in products:
        dense(torch, "cuda", count, DENSE_BARS_MS.get(count))
        torch.cuda.empty_cache()
    embedder(torch, "cuda:0")


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]] or list(DENSE_BARS_MS))
