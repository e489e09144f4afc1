"""An embedder as somebody would bring it along: a model, its manifest, golden picture and golden vector, in a directory.

The model is the mean colour, times a matrix, plus an offset, brought to unit length. Its ONNX file is written here, field by
field (onnx.proto), because nothing that is installed writes ONNX.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

DIMENSION, WIDTH, HEIGHT = 8, 32, 24
FLOAT, UINT8 = 1, 2  # TensorProto.DataType

_random = np.random.default_rng(5)
MATRIX = (_random.standard_normal((3, DIMENSION)) / 128).astype(np.float32)
OFFSET = _random.standard_normal(DIMENSION).astype(np.float32) / 4


def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the ONNX model computes."""
    raw = batch.astype(np.float32).mean(axis=(1, 2)) @ MATRIX + OFFSET
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


def bring(directory: Path, **other: Any) -> Path:
    """Writes it, and returns the manifest's path. `other` replaces what the manifest says by key; None leaves the key out."""
    picture = np.random.default_rng(6).integers(0, 256, (HEIGHT * 2, WIDTH * 2, 3), dtype=np.uint8)
    picture[:, :, 0] //= 3  # in BGR: little blue, so that the order of colours matters
    cv2.imwrite(str(directory / "golden.png"), picture)
    resized = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    (directory / "golden.json").write_text(json.dumps(run(resized[None, :, :, ::-1].astype(np.uint8))[0].tolist()))
    model = onnx()
    (directory / "model.onnx").write_bytes(model)
    stated: dict[str, Any] = {
        "id": "mean-colour-1",
        "file": "model.onnx",
        "kind": "onnx",
        "sha256": hashlib.sha256(model).hexdigest(),
        "licence": "Apache-2.0",
        "width": WIDTH,
        "height": HEIGHT,
        "dimension": DIMENSION,
        "golden_picture": "golden.png",
        "golden_vector": "golden.json",
        "tolerance": 0.001,
    } | other
    manifest = directory / "manifest.toml"
    # JSON's numbers and strings are TOML's, too.
    lines = [f"{key} = {json.dumps(value)}" for key, value in stated.items() if value is not None]
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def onnx() -> bytes:
    nodes = [
        _node("Cast", ["IMAGE"], "float", _attribute("to", FLOAT)),
        _node("ReduceMean", ["float"], "mean", _attribute("axes", [1, 2]), _attribute("keepdims", 0)),
        _node("MatMul", ["mean", "matrix"], "turned"),
        _node("Add", ["turned", "offset"], "raw"),
        _node("LpNormalization", ["raw"], "EMBEDDING", _attribute("axis", 1), _attribute("p", 2)),
    ]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "mean colour")
    graph += _field(5, _tensor("matrix", MATRIX)) + _field(5, _tensor("offset", OFFSET))
    graph += _field(11, _value("IMAGE", UINT8, ["N", HEIGHT, WIDTH, 3])) + _field(
        12, _value("EMBEDDING", FLOAT, ["N", DIMENSION])
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 13))  # IR version 8, operators of version 13


def _varint(value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _attribute(name: str, value: int | list[int]) -> bytes:
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, 2)
    return _field(1, name) + b"".join(_field(8, each) for each in value) + _field(20, 7)


def _node(operator: str, inputs: list[str], output: str, *attributes: bytes) -> bytes:
    node = b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, operator)
    return node + b"".join(_field(5, attribute) for attribute in attributes)


def _tensor(name: str, array: NDArray[np.float32]) -> bytes:
    dimensions = b"".join(_field(1, length) for length in array.shape)
    values = struct.pack(f"<{array.size}f", *array.ravel().tolist())
    return dimensions + _field(2, FLOAT) + _field(8, name) + _field(9, values)


def _value(name: str, kind: int, shape: list[int | str]) -> bytes:
    dimensions = b"".join(_field(1, _field(1 if isinstance(length, int) else 2, length)) for length in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dimensions)))
