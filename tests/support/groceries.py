"""Four products and four photographs of tests/data/grocery, and snapshots made of them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

PICTURES = Path(__file__).parent.parent / "data" / "grocery"
PRODUCTS = ("Arla-Natural-Yoghurt", "God-Morgon-Orange-Juice", "Oatly-Oat-Milk", "Yoggi-Strawberry-Yoghurt")
SHOWN = {
    "Arla-Natural-Yoghurt_002": "Arla-Natural-Yoghurt",
    "Oatly-Oat-Milk_003": "Oatly-Oat-Milk",
    "Yoggi-Strawberry-Yoghurt_005": "Yoggi-Strawberry-Yoghurt",
}
OF_NO_PRODUCT = "Tropicana-Golden-Grapefruit_002"


def catalogue_picture(product: str) -> bytes:
    return (PICTURES / "catalogue" / f"{product}.jpg").read_bytes()


def photograph(name: str) -> bytes:
    return (PICTURES / "photos" / f"{name}.jpg").read_bytes()


def pixels(jpeg: bytes) -> NDArray[np.uint8]:
    """BGR."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture, np.uint8)


def publish(directory: Path, name: str, blobs: Sequence[tuple[str, bytes]], *, matcher: str, embedder: str | None = None) -> Path:
    """A snapshot as the platform writes it, of features by product."""
    place = directory / name
    place.mkdir(parents=True)
    products, whole = [], b""
    for product, blob in blobs:
        picture = hashlib.sha256(blob).hexdigest()
        products.append({"product_id": product, "picture": picture, "offset": len(whole), "length": len(blob)})
        whole += blob
    (place / "features.bin").write_bytes(whole)
    manifest = {
        "format": 1,
        "matcher": matcher,
        "embedder": embedder,
        "sha256": hashlib.sha256(whole).hexdigest(),
        "products": products,
    }
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place
