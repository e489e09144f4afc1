"""Devices' keys: Ed25519, and the names its signatures go by."""

import warnings

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc.jwk import OKPKey

# RFC 9864 names the algorithm Ed25519; devices in the field still write EdDSA. Both mean the same with our keys.
ALGORITHMS = ["Ed25519", "EdDSA"]

# The library warns at each use of the older name.
warnings.filterwarnings("ignore", message="EdDSA is deprecated", module="joserfc")


def verification_key(public_key: bytes) -> OKPKey:
    """From the 32 bytes a device was paired with."""
    return OKPKey.import_key(Ed25519PublicKey.from_public_bytes(public_key))
