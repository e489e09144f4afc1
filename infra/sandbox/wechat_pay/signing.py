"""WeChat Pay's side of the signatures. Written apart from the connector's, so that a mistake of one is not the other's too."""

import base64
import re
import secrets
import time
from collections import deque

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from infra.sandbox.wechat_pay.keys import KeyPair, Keys

SCHEME = "WECHATPAY2-SHA256-RSA2048"
TOLERANCE_S = 300

_PAIR = re.compile(r'(\w+)="([^"]*)"')


def headers(pair: KeyPair, body: bytes, serial: str | None = None) -> dict[str, str]:
    """Of an answer or a notification. `serial` is the key's name where it is not its certificate's."""
    timestamp, nonce = str(int(time.time())), secrets.token_hex(16)
    signature = pair.key.sign(f"{timestamp}\n{nonce}\n".encode() + body + b"\n", PKCS1v15(), SHA256())
    return {
        "Content-Type": "application/json; charset=utf-8",
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Serial": serial or pair.serial,
        "Wechatpay-Signature": base64.b64encode(signature).decode(),
        "Wechatpay-Signature-Type": SCHEME,
        "Wechatpay-Timestamp": timestamp,
    }


class Doorkeeper:
    """Lets requests in that the merchant signed, each once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._order: deque[tuple[float, str]] = deque()

    def admits(self, authorization: str, method: str, target: str, body: bytes, keys: Keys) -> bool:
        scheme, _, rest = authorization.partition(" ")
        given = dict(_PAIR.findall(rest))
        if scheme != SCHEME or given.get("mchid") != keys.mchid or given.get("serial_no") != keys.merchant.serial:
            return False
        timestamp, nonce = given.get("timestamp", ""), given.get("nonce_str", "")
        now = time.time()
        if not timestamp.isdigit() or abs(now - int(timestamp)) > TOLERANCE_S or not 1 <= len(nonce) <= 32 or nonce in self._seen:
            return False
        message = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"
        try:
            signature = base64.b64decode(given.get("signature", ""), validate=True)
            keys.merchant.public_key.verify(signature, message, PKCS1v15(), SHA256())
        except (ValueError, InvalidSignature):
            return False
        self._seen.add(nonce)
        self._order.append((now, nonce))
        while self._order[0][0] < now - 2 * TOLERANCE_S:
            self._seen.discard(self._order.popleft()[1])
        return True
