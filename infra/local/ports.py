"""TCP ports on 127.0.0.1, chosen once and kept, so that addresses stay the same from one start to the next."""

import json
import random
import socket
from collections.abc import Collection, Iterable
from pathlib import Path

LOOPBACK = "127.0.0.1"

# Below the range Linux takes the ports of outgoing connections from (32768 and up). A port inside that range can be lost while
# its server is down: a client that keeps trying to connect may be given that very port as its own, and so connect to itself.
LOWEST_PORT = 20000
HIGHEST_PORT = 32000


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without this, a port whose last connections are still in TIME_WAIT would look taken, and be given up for no reason.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose_ports(names: Iterable[str], kept_in: Path) -> dict[str, int]:
    """A free port for each name: the one in the file `kept_in` where it is still free, else a new one. Updates the file."""
    kept = _read(kept_in)
    chosen: dict[str, int] = {}
    for name in names:
        port = kept.get(name)
        if port is None or port in chosen.values() or not is_free(port):
            port = new_port(avoid={*kept.values(), *chosen.values()})
        chosen[name] = port
    kept_in.write_text(json.dumps({**kept, **chosen}, indent=2) + "\n")
    return chosen


def _read(path: Path) -> dict[str, int]:
    try:
        return {str(name): int(port) for name, port in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def new_port(avoid: Collection[int] = ()) -> int:
    """A free one. Somebody else may take it before it is listened at, and hardly will."""
    candidates = range(LOWEST_PORT, HIGHEST_PORT)
    for port in random.sample(candidates, len(candidates)):
        if port not in avoid and is_free(port):
            return port
    raise OSError(f"no free TCP port between {LOWEST_PORT} and {HIGHEST_PORT} on {LOOPBACK}; end some servers on this machine")
