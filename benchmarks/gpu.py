"""What a GPU is for: `python -m benchmarks.gpu [PRODUCTS …]`, on a machine with torch; nothing of the platform is needed.

dense      one frame's 512 points against every point (500 each) of 10^4 and 10^5 products, as `match` does it there
           (vision/dense.py), in batches of several sizes. Limits measured in the same run: the matrix product
           alone, nothing done to its result, and a copy of so many numbers through the GPU's memory. Bars: 10 and 60 ms a frame.
embedder   a ViT-B/16 (random weights: speed does not depend on them) from UINT8 pixels to the shortlist: IMAGE, normalised,
           12 layers, EMBEDDING of unit length, likeness with 10^5 embeddings, best 50. Limit: the GPU's own large matrix product
           in the same precision. Bar: 5,000 images/s.

Before anything is timed, the answers on the GPU are held against NumPy's. On a machine without a GPU the same is done in small on
the CPU, and no time is a result.
"""

import itertools
import math
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from infra.triton.vision import dense as matching
from infra.triton.vision.dense import DenseMatcher

POINTS, LENGTH = 500, 128
FRAME_POINTS = matching.POINTS_PER_FRAME
BATCHES = (1 << 25, 1 << 27, 1 << 29, 1 << 31)
DENSE_BARS_MS = {10_000: 10.0, 100_000: 60.0}
IMAGES_BAR = 5_000
BATCH, EMBEDDINGS, SHORTLIST = 256, 100_000, 50
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


def vision_transformer(torch: Any, width: int = 768, depth: int = 12, heads: int = 12, patch: int = 16, side: int = 224) -> Any:
    """ViT-B/16 by its sizes (Dosovitskiy et al., 2021): UINT8 [N, side, side, 3] → FP32 [N, width] of unit length."""
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
            tokens = torch.cat([self.first.expand(len(tokens), -1, -1), tokens], dim=1) + self.places
            return functional.normalize(self.norm(self.layers(tokens))[:, 0].float(), dim=1)

    return Transformer().eval()


def embedder(torch: Any, device: str) -> None:
    on_gpu = device == "cuda"
    kind = torch.bfloat16 if on_gpu else torch.float32
    batch, known, depth = (BATCH, EMBEDDINGS, 12) if on_gpu else (2, 1000, 1)
    torch.manual_seed(0)
    model = vision_transformer(torch, depth=depth)
    images = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = model(images[:4])
        model = model.to(device, kind)
        images = images.to(device)
        likeness = float((model(images[:4]).cpu() * expected).sum(dim=1).min())
        if not likeness > 0.99:
            raise SystemExit(f"embedder: on {device} the cosine with the CPU's own FP32 answer is {likeness:.4f}")
        catalogue = torch.nn.functional.normalize(torch.randn(known, 768, device=device), dim=1).to(kind)
        running = torch.compile(model) if on_gpu else model

        def work() -> object:
            return torch.topk(running(images).to(kind) @ catalogue.T, SHORTLIST, dim=1)

        each_ms = timed_ms(torch, work, REPEATS if on_gpu else 2)
        rate = batch / each_ms * 1000
        if not on_gpu:
            print(f"embedder: one layer of it runs ({likeness:.4f}); its speed on a CPU is not a result")
            return
        side = 8192
        left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
        product_ms = timed_ms(torch, lambda: left @ right)
    limit = 2 * side**3 / product_ms / 1e9
    used = rate * 35.2e9 / 1e12  # 17.6 GMAC an image
    print(
        f"embedder: {rate:,.0f} images/s in batches of {batch}, shortlist from {known:,} included; "
        f"bar {IMAGES_BAR:,}: {'reached' if rate >= IMAGES_BAR else 'MISSED'}; "
        f"{used:.0f} TFLOP/s, a large product alone {limit:.0f} (ratio {used / limit:.2f})"
    )


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
    embedder(torch, "cuda")


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]] or list(DENSE_BARS_MS))
