"""What this machine's loopback has."""

from __future__ import annotations

import socket


def has_ipv6_loopback() -> bool:
    """Whether something can be served on ::1."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
