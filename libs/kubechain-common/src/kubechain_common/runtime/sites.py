"""Where a service's HTTP endpoints listen."""

from __future__ import annotations

import socket

from aiohttp import web


def build_site(runner: web.AppRunner, host: str, port: int) -> web.BaseSite:
    """On this address, or without one on all addresses of the machine, those of IPv6 and those of IPv4, at one port.

    ``0.0.0.0`` means those of IPv4 alone: in a cluster without them nobody, not even a probe, would be answered. Raises
    OSError when the port is taken.
    """
    if host:
        return web.TCPSite(runner, host, port)
    if socket.has_dualstack_ipv6():
        return web.SockSite(runner, socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True))
    return web.SockSite(runner, socket.create_server(("", port)))
