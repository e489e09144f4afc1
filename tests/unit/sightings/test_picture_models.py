"""Where Triton's servers are."""

import pytest

from streams.sightings import picture_models


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("127.0.0.1:8001", ["127.0.0.1:8001"]),
        ("[::1]:8001", ["[::1]:8001"]),
        ("triton", ["triton"]),
        ("dns:///triton:8001", ["dns:///triton:8001"]),
        ("no..name:8001", ["no..name:8001"]),
        ("triton:many", ["triton:many"]),
    ],
)
async def test_what_cannot_be_looked_up_is_one_address(url: str, addresses: list[str]) -> None:
    assert await picture_models._addresses(url) == addresses
