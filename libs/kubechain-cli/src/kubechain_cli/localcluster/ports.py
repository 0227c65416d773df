"""Ports of a cluster: free when first chosen, then kept, so that a restarted process or cluster keeps its address.

They come from below the range the kernel hands out to outgoing connections: while a server is being restarted
no client's socket can sit on its port. What was chosen is in use only seconds later, so clusters that start at the same
time tell each other, in a file of the user's, which ports they are about to take.
"""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from kubechain_cli.localcluster.errors import LocalClusterError
from kubechain_cli.localcluster.files import write_atomic
from kubechain_cli.localcluster.lock import hold_lock

FIRST_PORT, LAST_PORT = 20_000, 29_999
RESERVED_SECONDS = 120.0
"""How long a port that was chosen is left to its cluster, whether it is in use yet or not."""


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1 at this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_port(taken: set[int], free: Callable[[int], bool] = is_free) -> int:
    """A free port that is not in ``taken``. Raises LocalClusterError when there is none."""
    for port in random.sample(range(FIRST_PORT, LAST_PORT + 1), 1000):
        if port not in taken and free(port):
            return port
    raise LocalClusterError(
        f"No free port between {FIRST_PORT} and {LAST_PORT} on 127.0.0.1. Stop some servers and try again."
    )


def load_ports(path: Path) -> dict[str, int]:
    """The ports chosen before; a missing or damaged file counts as none."""
    try:
        stored = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(stored, dict):
        return {}
    return {name: port for name, port in stored.items() if isinstance(port, int)}


def assign_ports(
    path: Path, names: Iterable[str], reservations: Path, free: Callable[[int], bool] = is_free
) -> dict[str, int]:
    """Ports by name: the stored one where it is still free, else a new one; the file keeps every name it knew.

    ``reservations`` is the file that all clusters of the user share.
    """
    reservations.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(reservations.with_suffix(".lock"), wait=True):
        others = {port: owner for port, owner in _load_reservations(reservations).items() if owner[0] != str(path)}
        chosen = _choose(path, names, lambda port: port not in others and free(port))
        until = time.time() + RESERVED_SECONDS
        ours = dict.fromkeys(chosen.values(), (str(path), until))
        write_atomic(reservations, json.dumps({**others, **ours}))
    return chosen


def _load_reservations(path: Path) -> dict[int, tuple[str, float]]:
    """Whose each reserved port is, and until when."""
    try:
        stored = {
            int(port): (str(owner), float(until)) for port, (owner, until) in json.loads(path.read_text()).items()
        }
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}
    return {port: (owner, until) for port, (owner, until) in stored.items() if until > time.time()}


def _choose(path: Path, names: Iterable[str], free: Callable[[int], bool]) -> dict[str, int]:
    stored = load_ports(path)
    taken = set(stored.values())
    chosen: dict[str, int] = {}
    for name in names:
        port = stored.get(name)
        if port is None or not free(port):
            port = choose_port(taken, free)
            taken.add(port)
        chosen[name] = port
    write_atomic(path, json.dumps({**stored, **chosen}, indent=2))
    return chosen
