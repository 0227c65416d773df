"""Ports are chosen once and kept as long as nobody else took them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from kubechain_cli.localcluster.errors import LocalClusterError
from kubechain_cli.localcluster.ports import FIRST_PORT, LAST_PORT, assign_ports, choose_port, is_free

NAMES = ("etcd", "nats")


def test_ports_are_distinct_and_kept(tmp_path: Path) -> None:
    first = assign_ports(tmp_path / "ports.json", NAMES)
    assert len(set(first.values())) == 2
    assert all(FIRST_PORT <= port <= LAST_PORT for port in first.values())
    assert assign_ports(tmp_path / "ports.json", NAMES) == first


def test_a_port_that_someone_took_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    first = assign_ports(tmp_path / "ports.json", NAMES)
    second = assign_ports(tmp_path / "ports.json", NAMES, free=lambda port: port != first["nats"])
    assert second["etcd"] == first["etcd"]
    assert second["nats"] not in first.values()


def test_names_that_are_not_asked_for_keep_their_port(tmp_path: Path) -> None:
    first = assign_ports(tmp_path / "ports.json", NAMES)
    assign_ports(tmp_path / "ports.json", ("nats",))
    assert json.loads((tmp_path / "ports.json").read_text()) == first


@pytest.mark.parametrize("content", ["", "[1]", '{"nats": "x"}'])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    assert assign_ports(tmp_path / "ports.json", ("nats",)).keys() == {"nats"}


def test_a_listening_port_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_no_free_port_is_said() -> None:
    with pytest.raises(LocalClusterError, match="No free port"):
        choose_port(set(), free=lambda _: False)
