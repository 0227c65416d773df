"""The pure parts of isolation and of limits."""

from __future__ import annotations

import errno
import os
import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubechain_common.testing.builders import build_mcp_server
from kubechain_mcp_host.errors import InvalidSpecError
from kubechain_mcp_host.guard import landlock, meter, syscall_filter
from kubechain_mcp_host.guard.limits import PERIOD, CpuBudget, describe_excess
from kubechain_mcp_host.guard.orders import Orders, parse_orders
from kubechain_mcp_host.spec.quantity import parse_quantity
from kubechain_mcp_host.spec.resource_limits import read_limits
from kubechain_mcp_host.stdio.isolation import find_nats_ports, is_below, plan_isolation
from kubechain_mcp_host.stdio.server_home import ServerHomes, build_home_environment

UID = "0b0e8a5e-6f0f-4c58-9a47-3c4a3c1c8f11"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", Fraction(1, 2)),
        ("0.2", Fraction(1, 5)),
        (2, 2),
        ("512Mi", 512 * 2**20),
        ("1.5Gi", 3 * 2**29),
        ("1G", 10**9),
        ("2e3", 2000),
        ("5E-1", Fraction(1, 2)),
        ("1E", 10**18),
        ("100n", Fraction(1, 10**7)),
        ("-1k", -1000),
        (".5", Fraction(1, 2)),
        ("3.", 3),
    ],
)
def test_quantities(text: int | str, value: Fraction | int) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "Mi", "1 Gi", "1MB", "1,5", "0x10", "1e", "1e999", "١", "1mi", "inf", "1K"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


def limits_of(**limits: Any) -> tuple[int, float]:
    return read_limits(build_mcp_server(resources={"limits": limits}))


def test_limits_in_bytes_and_cores() -> None:
    assert limits_of(memory="512Mi", cpu="200m") == (512 * 2**20, 0.2)
    assert limits_of(cpu=2) == (0, 2.0)
    assert limits_of() == read_limits(build_mcp_server(resources={})) == read_limits(build_mcp_server()) == (0, 0.0)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"memory": 512}, '.memory: "512" is less than 16Mi; write 512Mi or 1Gi, say.'),
        ({"memory": "512m"}, '.memory: "512m" is less than 16Mi; write 512Mi or 1Gi, say.'),
        ({"memory": "512MB"}, '.memory: "512MB" is not a quantity; write 512Mi or 1Gi, say.'),
        ({"cpu": "-1"}, '.cpu: "-1" is less than 10m; write 500m or 2, say.'),
    ],
)
def test_limits_that_can_not_be_meant(limits: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        limits_of(**limits)
    assert str(caught.value) == f"Validation failed: spec.resources.limits{sentence}"


def test_orders_arrive_as_they_were_given() -> None:
    orders = Orders(
        ["cmd", "--", "--memory=1", ""],
        landlock=6,
        seccomp=1,
        readable=("/usr", "/a=b --c"),
        writable=("/home",),
        ports=7,
        memory=1 << 40,
        cpu=0.2,
    )
    arrived = parse_orders(orders.to_arguments(5))
    expected = {name: getattr(orders, name) for name in Orders.__slots__} | {"report": 5}
    assert {name: getattr(arrived, name) for name in Orders.__slots__} == expected


@pytest.mark.parametrize("arguments", [["--"], ["--what=1", "--", "cmd"], ["cmd"], ["--memory=x", "--", "cmd"]])
def test_orders_that_nobody_gave(arguments: list[str]) -> None:
    with pytest.raises(ValueError, match=r"unknown orders|not in list|invalid literal"):
        parse_orders(arguments)


@settings(max_examples=30, deadline=None)
@given(
    cores=st.sampled_from([0.01, 0.05, 0.2, 0.5, 1.0, 1.5]),
    width=st.sampled_from([1.0, 2.0, 4.0]),
    lateness=st.lists(st.floats(0, 0.05), min_size=10, max_size=10),
)
def test_a_tree_that_always_computes_gets_its_share(cores: float, width: float, lateness: list[float]) -> None:
    """However late each look is, the use stays within the limit, and near it."""
    budget = CpuBudget(cores, 0.0, 0.0)
    now = used = 0.0
    for step in range(4_000):
        passed = budget.next_look() + lateness[step % len(lateness)]
        now += passed
        used += 0.0 if budget.paused else passed * width
        budget.charge(now, used)
        if now > 20:
            break
    share = used / now
    assert share <= cores * 1.02 + width * (PERIOD + 0.05) / now
    assert share >= min(cores, width) * 0.75  # what is saved up while nobody looks is lost


def test_an_idle_tree_is_looked_at_seldom_and_may_compute_at_once() -> None:
    budget = CpuBudget(0.2, 0.0, 0.0)
    for now in range(1, 100):
        budget.charge(now / 10, 0.0)
        assert budget.next_look() == PERIOD
    budget.charge(10.0, 0.019)
    assert not budget.paused


def test_words_for_too_much_memory() -> None:
    assert (
        describe_excess(612 * 2**20, 512 * 2**20)
        == "the server used 612Mi of memory, its limit is 512Mi (spec.resources.limits.memory)"
    )


def test_a_process_that_ends_while_it_is_measured_uses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages are shared with its parent, which counts them; the kernel has nothing more to say of them."""
    page = os.sysconf("SC_PAGE_SIZE")
    told = {
        "/proc/1/statm": [b"1 100 1"],
        "/proc/1/smaps_rollup": [f"Pss: {100 * page // 1024} kB".encode()],
        "/proc/2/statm": [b"1 100 1", b"0 0 0"],
    }

    def read(path: str) -> bytes:
        if path not in told:
            raise ProcessLookupError(errno.ESRCH, "No such process", path)
        return told[path].pop(0)

    monkeypatch.setattr(meter, "read", read)
    assert meter.measure_memory([1, 2], limit=150 * page) == 100 * page


def test_rights_by_abi() -> None:
    assert [landlock.file_rights(abi).bit_length() for abi in range(8)] == [0, 13, 14, 15, 15, 16, 16, 16]
    assert [landlock.scopes(abi) for abi in (5, 6, 7)] == [0, 3, 3]
    assert landlock.build_port_rules(3, frozenset()) == -1


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("nats://nats.kubechain-system:4222", {4222}),
        ("tls://nats", {4222}),
        ("nats://a:1,nats://b:2, c:3", {1, 2, 3}),
        ("localhost", {4222}),
        ("nats://user:pass@host:99999", {4222}),
    ],
)
def test_ports_of_nats(url: str, ports: set[int]) -> None:
    assert find_nats_ports(url) == ports


def plan(environ: dict[str, str] | None = None, *, abi: int | OSError = 7, filters: bool = True, **options: Any) -> Any:
    def find() -> int:
        if isinstance(abi, OSError):
            raise abi
        return abi

    def check() -> None:
        if not filters:
            raise OSError(errno.ENOSYS, "")

    given_options = {"data": Path("/var/lib/kubechain/mcp"), "extra_readable": (), "min_abi": 6, **options}
    return plan_isolation(
        environ or {}, nats_url="nats://nats:4222", find_abi=find, check_filter=check, **given_options
    )


def test_servers_read_what_programs_need_and_no_more() -> None:
    planned = plan({"SSL_CERT_FILE": "/certs/ca.pem"}, extra_readable=["/tools"])
    assert planned.obstacle == ""
    assert {"/usr", "/etc/hosts", "/etc/ssl", "/certs/ca.pem", "/tools", sys.prefix, sys.base_prefix} <= set(
        planned.readable
    )
    assert not is_below("/var/run/secrets/kubernetes.io/serviceaccount/token", planned.readable)
    assert not any(
        is_below(path, planned.readable)
        for path in ("/", "/etc", "/etc/shadow", "/etc/kubechain/nats", "/var", "/tmp", "/home", "/root/.kube", "/run")
    )
    assert planned.denied_ports == {4222}
    assert planned.abi == landlock.WHOLE_ABI


@pytest.mark.parametrize(
    ("environ", "options", "hidden", "inside"),
    [
        ({"KUBECHAIN_NATS_PASSWORD_FILE": "/etc/ssl/nats"}, {}, "/etc/ssl/nats", "/etc/ssl"),
        ({"KUBECONFIG": "/a:/usr/share/kubeconfig"}, {}, "/usr/share/kubeconfig", "/usr"),
        ({}, {"data": Path("/opt/mcp")}, "/opt/mcp", "/opt"),
        ({}, {"extra_readable": ["/"]}, "/var/run/secrets", "/"),
    ],
)
def test_secrets_that_lie_in_the_open_are_an_obstacle(
    environ: dict[str, str], options: dict[str, Any], hidden: str, inside: str
) -> None:
    obstacle = plan(environ, **options).obstacle
    assert f"{hidden} must be hidden from them, but they may read {inside}." in obstacle


def test_a_certificate_of_nats_is_no_secret() -> None:
    assert (
        plan(
            {"KUBECHAIN_NATS_CA_FILE": "/etc/ssl/nats.pem", "KUBECHAIN_NATS_PASSWORD_FILE": "/etc/kubechain/nats"}
        ).obstacle
        == ""
    )


@pytest.mark.parametrize(
    ("abi", "min_abi", "words"),
    [
        (OSError(errno.ENOSYS, ""), 6, "no Landlock, or a seccomp profile hides it"),
        (OSError(errno.EPERM, ""), 6, "a seccomp profile keeps Landlock from mcp-host"),
        (OSError(errno.EOPNOTSUPP, ""), 6, "add it to the boot parameter lsm="),
        (4, 6, "has Landlock ABI 4, and 6 is asked for, it lacks control of devices and control of signals"),
        (2, 3, "it lacks control of truncation. Run mcp-host on Linux"),
    ],
)
def test_what_a_kernel_lacks_is_said(abi: int | OSError, min_abi: int, words: str) -> None:
    obstacle = plan(abi=abi, min_abi=min_abi).obstacle
    assert obstacle.startswith("Stdio servers can not be isolated: ")
    assert words in obstacle
    assert "KUBECHAIN_MCP_" in obstacle


def test_without_filters_of_system_calls_no_server_starts_unless_that_is_wanted() -> None:
    planned = plan(filters=False)
    assert planned.obstacle.startswith("Stdio servers can not be isolated: mcp-host can not filter system calls by ")
    assert "or set KUBECHAIN_MCP_LANDLOCK_ABI to 3" in planned.obstacle
    planned = plan(filters=False, min_abi=3)
    assert (planned.obstacle, planned.filtered, planned.abi) == ("", False, landlock.WHOLE_ABI)
    assert plan().filtered


ALLOWED = 0x7FFF0000
NATIVE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS = {"x86_64": (41, 44, 46, 307, 425), "aarch64": (198, 206, 211, 269, 425)}


def run_filter(machine: str, architecture: int, number: int, *arguments: int) -> int:
    """What the kernel makes of it: the errno of a refusal, 0 if the call is allowed."""
    call = struct.pack("<iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    program = syscall_filter.build_filter(machine)
    position = accumulator = 0
    while True:
        code, if_true, if_false, value = program[position]
        position += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", call, value)
            case 0x15:
                position += if_true if accumulator == value else if_false
            case 0x35:
                position += if_true if accumulator >= value else if_false
            case 0x45:
                position += if_true if accumulator & value else if_false
            case _:
                assert code == 0x06
                assert value == ALLOWED or value >> 16 == 5
                return 0 if value == ALLOWED else value & 0xFFFF


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_the_filter_of_system_calls_refuses(machine: str) -> None:
    def run(number: int, *arguments: int) -> int:
        return run_filter(machine, NATIVE[machine], number, *arguments)

    opens, sendto, sendmsg, sendmmsg, ring = CALLS[machine]
    fast = 0x20004000
    tcp, udp, dirty = (2, 1, 6), (10, 2 | 0o4000, 17), (7 << 32 | 2, 1, 9 << 32)
    assert [run(opens, *call) for call in (tcp, udp, dirty, (16, 3, 0))] == [0] * 4
    assert run(opens, 2, 1, 262) == run(opens, 10, 1, 1 << 32 | 262) == errno.EPROTONOSUPPORT
    assert run(opens, 2, 1, 256) == errno.EPROTONOSUPPORT
    assert run(opens, 43, 1, 0) == run(opens, 1 << 32 | 43, 1, 0) == errno.EAFNOSUPPORT
    assert run(sendto, 3, 0, fast, 0x4000) == run(sendmsg, 3, fast, 0x4000) == run(sendmmsg, 3, 0, fast, 0x4000) == 0
    refused = (run(sendto, 3, 0, 1, fast), run(sendmsg, 3, 0, fast), run(sendmmsg, 3, 0, 1, 1 << 32 | fast))
    assert set(refused) == {errno.EOPNOTSUPP}
    assert run(ring, 8) == errno.ENOSYS
    others = set(range(600)) - set(CALLS[machine])
    assert not any(run(number, *[0xFFFFFFFFFFFFFFFF] * 6) for number in others)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_system_calls_of_other_abis_are_refused(machine: str) -> None:
    foreign = {0x40000003, 0x40000028, NATIVE["x86_64"], NATIVE["aarch64"]} - {NATIVE[machine]}
    assert {run_filter(machine, architecture, 39) for architecture in foreign} == {errno.ENOSYS}
    assert {run_filter(machine, NATIVE[machine], number) for number in (0x40000000, 0x40000029, -1)} == {errno.ENOSYS}


def test_an_older_kernel_will_do_where_that_is_wanted() -> None:
    planned = plan(abi=4, min_abi=4)
    assert (planned.obstacle, planned.abi) == ("", 4)


def test_folders_are_named_by_uid_and_stay_below_their_root(tmp_path: Path) -> None:
    homes = ServerHomes(tmp_path)
    assert homes.path_of(UID) == tmp_path / UID
    assert homes.path_of("../../etc").parent == tmp_path
    assert homes.find_leftovers({UID}) == []
    homes.make(UID)
    (tmp_path / "other").mkdir()
    assert homes.find_leftovers(set()) == [UID]
    assert homes.find_leftovers({UID}) == []


def test_everything_that_a_runner_writes_goes_home() -> None:
    environment = build_home_environment(Path("/data/x"))
    assert all(Path(value).is_relative_to("/data/x") for value in environment.values())
    assert {"HOME", "TMPDIR", "UV_CACHE_DIR", "npm_config_cache"} <= environment.keys()
