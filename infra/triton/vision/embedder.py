"""A model of your own that turns a picture into one vector: loaded only where it does what its manifest promises.

    IMAGE UINT8 [N, H, W, 3], RGB as it is  →  EMBEDDING FP32 [N, D], each of unit length

Normalisation (mean, scale, order of colours) is inside the model. The manifest is a TOML file (infra/triton/embedders/README.md).
Triton's model `embedder` loads it (`load`): ONNX in onnxruntime, TorchScript in torch; a TensorRT plan is served by Triton's own
backend. `match` and `features` ask that model, of whichever kind it is (`served`). Wherever it runs, the golden picture has to
become the golden vector before the first frame is answered.
"""

import hashlib
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from .frames import MAXIMUM_PIXELS

MANIFEST_VARIABLE = "AUGENBLICK_EMBEDDER_MANIFEST"

Kind = Literal["onnx", "torchscript", "tensorrt"]
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 [N, H, W, 3] → float32 [N, D]."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_UNIT_LENGTH_WITHIN = 1e-3
_LARGEST_TOLERANCE = 0.05
"""A golden vector that may differ by more proves nothing."""
_TYPES: dict[str, type] = {
    "id": str,
    "file": str,
    "kind": str,
    "sha256": str,
    "licence": str,
    "width": int,
    "height": int,
    "dimension": int,
    "golden_picture": str,
    "golden_vector": str,
    "tolerance": float,
}


class EmbedderRefused(ValueError):
    """The model is not used. The message says what it, or its manifest, does not keep."""


class PictureRefused(ValueError):
    """These pixels are none that anybody may ask about. The message goes to the caller."""


@dataclass(frozen=True)
class Manifest:
    """`width` and `height` are what pictures are resized to, in pixels. Files are beside the manifest. `tolerance` is how far any
    one number of the golden vector may be off: kinds of processors round differently."""

    id: str
    file: Path
    kind: Kind
    sha256: str
    licence: str
    width: int
    height: int
    dimension: int
    golden_picture: Path
    golden_vector: Path
    tolerance: float


class Embedder:
    """Made by `load` or `served`. `id` belongs to every vector it makes: vectors of two embedders are never compared."""

    def __init__(self, manifest: Manifest, run: Run) -> None:
        self.id = manifest.id
        self.dimension = manifest.dimension
        self._manifest = manifest
        self._run = run
        self._proven = False

    def embed(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`picture` is uint8 [height, width, 3] in BGR, as OpenCV decodes it, of any size. The answer is float32 [D] of unit
        length. Raises EmbedderRefused where the model's answer is none."""
        embedding: NDArray[np.float32] = self.embed_rgb([picture[:, :, ::-1]])[0]
        return embedding

    def embed_rgb(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """uint8 [height, width, 3] in RGB each, of any sizes → float32 [N, D], in one call of the model."""
        if not pictures:
            return np.zeros((0, self.dimension), np.float32)
        return self.embed_resized(np.stack([self._resized(picture) for picture in pictures]))

    def embed_each(self, requests: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32] | Exception]:
        """As `embed_rgb`, for several callers: uint8 [N, height, width, 3] each → float32 [N, D] each, or what was the matter
        with this one alone (PictureRefused where it is the caller's). All in one call of the model, if that can be."""
        answers: dict[int, NDArray[np.float32] | Exception] = {}
        resized: dict[int, NDArray[np.uint8]] = {}
        for number, pictures in enumerate(requests):
            try:
                resized[number] = self._resized_within_limits(pictures)
            except Exception as error:
                answers[number] = error
        answers |= self._embed_together(resized)
        return [answers[number] for number in range(len(requests))]

    def _embed_together(self, batches: Mapping[int, NDArray[np.uint8]]) -> dict[int, NDArray[np.float32] | Exception]:
        """Where it fails, each by itself."""
        if not batches:
            return {}
        try:
            together = self.embed_resized(np.concatenate(list(batches.values())))
        except Exception as error:
            if len(batches) == 1:
                return dict.fromkeys(batches, error)
            return {number: self._embed_together({number: batch})[number] for number, batch in batches.items()}
        ends = np.cumsum([len(batch) for batch in batches.values()])
        return dict(zip(batches, np.split(together, ends[:-1]), strict=True))

    def embed_resized(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [N, height, width, 3] in RGB → float32 [N, D]."""
        if not self._proven:
            self.check_golden()
        return self._embedded(batch)

    def _embedded(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        expected = (self._manifest.height, self._manifest.width, 3)
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != expected:
            raise ValueError(f"IMAGE is {batch.dtype} {list(batch.shape)}, not uint8 [N, {', '.join(map(str, expected))}]")
        embeddings = np.asarray(self._run(batch))
        if embeddings.dtype != np.float32 or embeddings.shape != (len(batch), self.dimension):
            raise self._refused(
                f"it answers {embeddings.dtype} {list(embeddings.shape)}, not float32 [{len(batch)}, {self.dimension}]"
            )
        lengths = np.linalg.norm(embeddings, axis=1)
        if not np.all(np.abs(lengths - 1) <= _UNIT_LENGTH_WITHIN):  # not for NaN either
            raise self._refused(f"its embedding has length {float(lengths[np.argmax(np.abs(lengths - 1))]):.4f}, not 1")
        return embeddings

    def _resized(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = (self._manifest.width, self._manifest.height)
        return np.asarray(cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA), np.uint8)

    def _resized_within_limits(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or not pictures.size:
            raise PictureRefused("IMAGE is not uint8 [N, height, width, 3]")
        if pictures.size // 3 > MAXIMUM_PIXELS:
            raise PictureRefused(f"IMAGE has {pictures.size // 3:,} pixels; {MAXIMUM_PIXELS:,} are the limit")
        return np.stack([self._resized(picture) for picture in pictures])

    def check_golden(self) -> None:
        """Raises EmbedderRefused where the golden picture does not become the golden vector."""
        picture = cv2.imdecode(np.frombuffer(_content(self._manifest.golden_picture), np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise self._refused("its golden picture cannot be decoded")
        try:
            golden = np.array(json.loads(_content(self._manifest.golden_vector)), np.float64)
        except (ValueError, TypeError):
            raise self._refused("its golden vector is no JSON list of numbers") from None
        if golden.shape != (self.dimension,):
            raise self._refused(f"its golden vector has {golden.size} numbers, not {self.dimension}")
        answer = self._embedded(self._resized(np.asarray(picture, np.uint8)[:, :, ::-1])[None])[0]
        furthest = float(np.abs(answer - golden).max())
        if not furthest <= self._manifest.tolerance:
            raise self._refused(f"its golden vector differs by {furthest:.5f}; {self._manifest.tolerance} are allowed")
        self._proven = True

    def _refused(self, reason: str) -> EmbedderRefused:
        return EmbedderRefused(f"embedder {self.id}: {reason}")


class Refusing(Embedder):
    """Stands for one whose manifest is not kept: whoever needs it is told why, and who does not goes on."""

    def __init__(self, reason: str) -> None:
        self.id, self.dimension, self._reason = "", 0, reason

    def embed_rgb(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        raise EmbedderRefused(self._reason)


def configured() -> Path | None:
    """The manifest that AUGENBLICK_EMBEDDER_MANIFEST names; None where it names nothing."""
    path = os.environ.get(MANIFEST_VARIABLE)
    return Path(path) if path else None


def load(manifest_file: Path, *, device: str = "cpu") -> Embedder:
    """Into this process. `device` is where it computes, as PyTorch names it. Raises EmbedderRefused."""
    manifest = _checked(manifest_file)
    embedder = Embedder(manifest, _runner(manifest, device))
    embedder.check_golden()
    return embedder


def served(manifest_file: Path, run: Run) -> Embedder:
    """One that runs elsewhere, which `run` asks. Raises EmbedderRefused where manifest and file do not belong together. The
    golden vector is checked when the first picture comes, because nobody can be asked while models are being loaded; until it is
    right, every picture raises EmbedderRefused."""
    return Embedder(_checked(manifest_file), run)


def _checked(manifest_file: Path) -> Manifest:
    manifest = read_manifest(manifest_file)
    actual = hashlib.sha256(_content(manifest.file)).hexdigest()
    if actual != manifest.sha256:
        raise EmbedderRefused(
            f"embedder {manifest.id}: {manifest.file.name} has SHA-256 {actual}, the manifest says {manifest.sha256}"
        )
    return manifest


def read_manifest(path: Path) -> Manifest:
    try:
        stated: dict[str, Any] = tomllib.loads(_content(path).decode())
    except ValueError as error:
        raise EmbedderRefused(f"{path.name} is no TOML: {error}") from None
    if missing := _TYPES.keys() - stated.keys():
        raise EmbedderRefused(f"{path.name} lacks {', '.join(sorted(missing))}")
    if unknown := stated.keys() - _TYPES.keys():
        raise EmbedderRefused(f"{path.name} has unknown keys: {', '.join(sorted(unknown))}")
    for name, kind in _TYPES.items():
        if type(stated[name]) is not kind:
            raise EmbedderRefused(f"{path.name}: {name} is not of type {kind.__name__}")
    if not _ID.fullmatch(stated["id"]):
        raise EmbedderRefused(f"{path.name}: id has 1 to 64 letters, digits, '.', '_' and '-', and begins with a letter or digit")
    if stated["kind"] not in get_args(Kind):
        raise EmbedderRefused(f"{path.name}: kind is one of {', '.join(get_args(Kind))}")
    if not stated["licence"].strip():
        raise EmbedderRefused(f"{path.name}: licence is empty. Say under which one the model may be used (an SPDX identifier)")
    if not (1 <= stated["dimension"] <= 65_535 and 1 <= stated["width"] <= 4096 and 1 <= stated["height"] <= 4096):
        raise EmbedderRefused(f"{path.name}: dimension is 1 to 65,535, width and height 1 to 4,096")
    if not 0 < stated["tolerance"] <= _LARGEST_TOLERANCE:
        raise EmbedderRefused(f"{path.name}: tolerance is above 0 and at most {_LARGEST_TOLERANCE}")
    files = {name: _beside(path, stated[name]) for name in ("file", "golden_picture", "golden_vector")}
    return Manifest(**(stated | files))


def _beside(manifest_file: Path, name: str) -> Path:
    if Path(name).name != name:
        raise EmbedderRefused(f"{manifest_file.name}: {name!r} is not the name of a file beside it")
    return manifest_file.parent / name


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise EmbedderRefused(f"{path.name} cannot be read") from None


def _runner(manifest: Manifest, device: str) -> Run:
    if manifest.kind == "onnx":
        return _onnx(manifest, device)
    if manifest.kind == "torchscript":
        return _torchscript(manifest, device)
    raise EmbedderRefused(
        f"embedder {manifest.id}: a TensorRT plan runs in Triton's own backend (see infra/triton/embedders/README.md)"
    )


def _onnx(manifest: Manifest, device: str) -> Run:
    import onnxruntime  # type: ignore[import-not-found]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one instance is one core; more come with more instances
    on_gpu, _, number = device.partition(":")
    providers: list[Any] = [("CUDAExecutionProvider", {"device_id": number or "0"})] if on_gpu == "cuda" else []
    try:
        session = onnxruntime.InferenceSession(str(manifest.file), options, providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:
        raise EmbedderRefused(f"embedder {manifest.id}: onnxruntime does not load it: {error}") from None
    if providers and "CUDAExecutionProvider" not in session.get_providers():
        # It would go on without, a hundred times slower, and nobody would know.
        raise EmbedderRefused(f"embedder {manifest.id}: onnxruntime cannot use {device} here")
    inputs = [(tensor.name, tensor.type) for tensor in session.get_inputs()]
    outputs = [(tensor.name, tensor.type) for tensor in session.get_outputs()]
    if inputs != [("IMAGE", "tensor(uint8)")] or outputs != [("EMBEDDING", "tensor(float)")]:
        raise EmbedderRefused(
            f"embedder {manifest.id}: it takes {inputs} and answers {outputs}, not IMAGE uint8 and EMBEDDING float"
        )

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            return np.asarray(session.run(["EMBEDDING"], {"IMAGE": batch})[0])
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise EmbedderRefused(f"embedder {manifest.id}: onnxruntime: {type(error).__name__}") from None

    return run


def _torchscript(manifest: Manifest, device: str) -> Run:
    try:
        import torch  # type: ignore[import-not-found]
    except ImportError:
        raise EmbedderRefused(f"embedder {manifest.id}: TorchScript needs torch, which is not installed here") from None
    try:
        module = torch.jit.load(str(manifest.file), map_location=device).eval()
    except RuntimeError as error:
        raise EmbedderRefused(f"embedder {manifest.id}: torch does not load it: {error}") from None

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(batch).to(device)).cpu().numpy())

    return run


def main() -> None:
    if len(sys.argv) not in (2, 3):
        raise SystemExit("python -m vision.embedder MANIFEST [cpu|cuda:0]")
    try:
        embedder = load(Path(sys.argv[1]), device=(sys.argv[2:] or ["cpu"])[0])
    except EmbedderRefused as refusal:
        raise SystemExit(str(refusal)) from None
    started = perf_counter()
    for _ in range(10):
        embedder.check_golden()
    each_ms = (perf_counter() - started) * 100
    print(f"{embedder.id}: {embedder.dimension} numbers, as promised; {each_ms:.1f} ms a picture")


if __name__ == "__main__":
    main()
