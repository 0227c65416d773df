"""The network of the tests: containers find each other by name, and this machine's servers at its gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from urllib.parse import urlsplit, urlunsplit

from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.network import Network
from tests.chaos.proxy import Mode, Proxy
from tests.e2e.support.background import BackgroundLoop

SUBNETS = [IPv4Network(f"10.213.{number}.0/24") for number in range(0, 256, 8)]
FIRST_ADDRESS = 10


class Gate:
    """How containers reach a port of 127.0.0.1 here; it can be closed."""

    def __init__(self, loop: BackgroundLoop, host: str, target: int) -> None:
        self._loop = loop
        self._proxy = Proxy(target, host)
        loop.run(self._proxy.start())
        self.port = self._proxy.port
        self.address = f"{host}:{self.port}"

    def close(self) -> None:
        """Nobody answers."""
        self._loop.run(self._proxy.set_mode(Mode.REFUSE))

    def open(self) -> None:
        self._loop.run(self._proxy.set_mode(Mode.FORWARD))

    def remove(self) -> None:
        self._loop.run(self._proxy.aclose())


class Place:
    """The network and the gates in it."""

    def __init__(self, network: Network, subnet: IPv4Network, loop: BackgroundLoop) -> None:
        self.network = network
        self.api_version: str = DockerClient().client.api._version
        self.gateway = str(subnet[1])
        self._subnet = subnet
        self._loop = loop
        self._taken = FIRST_ADDRESS
        self._gates: list[Gate] = []

    def take_address(self) -> str:
        """One that nobody had before."""
        self._taken += 1
        return str(IPv4Address(self._subnet[self._taken]))

    def make_gate(self, port: int) -> Gate:
        gate = Gate(self._loop, self.gateway, port)
        self._gates.append(gate)
        return gate

    def let_in(self, url: str) -> str:
        """The URL by which containers reach a server that listens on 127.0.0.1 here."""
        parts = urlsplit(url)
        assert parts.port is not None
        return urlunsplit(parts._replace(netloc=self.make_gate(parts.port).address))

    def remove_gates(self) -> None:
        for gate in self._gates:
            gate.remove()


@contextmanager
def running_place() -> Iterator[Place]:
    network, subnet = create_network()
    try:
        with BackgroundLoop() as loop:
            place = Place(network, subnet, loop)
            try:
                yield place
            finally:
                place.remove_gates()
    finally:
        network.remove()


def create_network() -> tuple[Network, IPv4Network]:
    """A bridge on the first of our subnets that nobody uses; other runs of these tests may go on beside us."""
    for subnet in SUBNETS:
        pool = IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))
        network = Network(docker_network_kw={"driver": "bridge", "ipam": IPAMConfig(pool_configs=[pool])})
        try:
            return network.create(), subnet
        except APIError as error:
            if "overlap" not in str(error):
                raise
    raise AssertionError("every subnet of the tests is taken; `docker network prune` removes what is left over")
