"""Ports are chosen once and kept as long as nobody else took them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from kubechain_cli.localcluster.errors import LocalClusterError
from kubechain_cli.localcluster.ports import FIRST_PORT, LAST_PORT, RESERVED_SECONDS, assign_ports, choose_port, is_free

NAMES = ("etcd", "nats")


def assign(place: Path, names: Iterable[str], free: Callable[[int], bool] = is_free) -> dict[str, int]:
    return assign_ports(place / "ports.json", names, place / "reserved.json", free)


def test_ports_are_distinct_and_kept(tmp_path: Path) -> None:
    first = assign(tmp_path, NAMES)
    assert len(set(first.values())) == 2
    assert all(FIRST_PORT <= port <= LAST_PORT for port in first.values())
    assert assign(tmp_path, NAMES) == first


def test_a_port_that_someone_took_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    first = assign(tmp_path, NAMES)
    second = assign(tmp_path, NAMES, free=lambda port: port != first["nats"])
    assert second["etcd"] == first["etcd"]
    assert second["nats"] not in first.values()


def test_names_that_are_not_asked_for_keep_their_port(tmp_path: Path) -> None:
    first = assign(tmp_path, NAMES)
    assign(tmp_path, ("nats",))
    assert json.loads((tmp_path / "ports.json").read_text()) == first


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The ports that there are."""
    monkeypatch.setattr("random.sample", lambda ports, count: list(ports)[:3])
    return {FIRST_PORT, FIRST_PORT + 1, FIRST_PORT + 2}


def test_a_port_that_another_cluster_is_about_to_take_is_left_to_it(tmp_path: Path, few: set[int]) -> None:
    reserved = tmp_path / "reserved.json"
    one = assign_ports(tmp_path / "a.json", NAMES, reserved, lambda port: True)
    other = assign_ports(tmp_path / "b.json", ("etcd",), reserved, lambda port: True)
    assert {*one.values(), *other.values()} == few
    with pytest.raises(LocalClusterError, match="No free port"):
        assign_ports(tmp_path / "c.json", NAMES, reserved, lambda port: True)
    assert assign_ports(tmp_path / "a.json", NAMES, reserved, lambda port: True) == one


def test_a_reservation_ends(tmp_path: Path, few: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    reserved = tmp_path / "reserved.json"
    assign_ports(tmp_path / "a.json", NAMES, reserved, lambda port: True)
    later = time.time() + RESERVED_SECONDS + 1
    monkeypatch.setattr("time.time", lambda: later)
    assert set(assign_ports(tmp_path / "b.json", NAMES, reserved, lambda port: True).values()) <= few


@pytest.mark.parametrize("content", ["", "[1]", '{"1": 2}', '{"x": ["a", 1]}'])
def test_damaged_reservations_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "reserved.json").write_text(content)
    assert assign(tmp_path, NAMES).keys() == set(NAMES)


@pytest.mark.parametrize("content", ["", "[1]", '{"nats": "x"}'])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    assert assign(tmp_path, ("nats",)).keys() == {"nats"}


def test_a_listening_port_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_no_free_port_is_said() -> None:
    with pytest.raises(LocalClusterError, match="No free port"):
        choose_port(set(), free=lambda _: False)
