"""A stdio MCP server that tries to get at what is not its own, and reports what it could.

Nothing but Python's own library, so that it runs wherever mcp-host does: `python3 probe_server.py`, or
`python3 -c "$(cat probe_server.py)"` where there is no file to read. Its tools answer in JSON. What an attempt came
to is `done`, or the words of the error.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DONE = "done"
POD_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
MPTCP, FAST_OPEN, FAST_OPEN_CONNECT, IO_URING_SETUP = 262, 0x20000000, 30, 425
hoard: list[bytearray] = []


def attempt(deed: Callable[[], object]) -> str:
    try:
        deed()
    except OSError as error:
        return error.strerror or type(error).__name__
    return DONE


def facts() -> dict[str, Any]:
    """Who it is, for others to try."""
    return {
        "pid": os.getpid(),
        "guard": os.getppid(),
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "oomScore": int(Path("/proc/self/oom_score_adj").read_text()),
    }


def read(paths: list[str]) -> dict[str, str]:
    """Opens files for reading, and lists folders."""
    return {path: attempt(lambda path=path: read_one(path)) for path in paths}  # type: ignore[misc]


def read_one(path: str) -> None:
    if os.path.isdir(path):
        os.listdir(path)
    else:
        Path(path).read_bytes()


def read_some(path: str) -> None:
    """Kernel threads and zombies have these files too, with nothing in them."""
    if not Path(path).read_bytes():
        refuse()


def refuse() -> Any:
    raise OSError(0, "nothing there")


def write(folders: list[str]) -> dict[str, str]:
    """Makes a folder and a file in each folder, and moves the file."""
    return {folder: attempt(lambda folder=folder: write_one(folder)) for folder in folders}  # type: ignore[misc]


def write_one(folder: str) -> None:
    path = os.path.join(folder, f"probe-{os.getpid()}")
    os.mkdir(path, 0o700)
    os.close(os.open(f"{path}/file", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    os.rename(f"{path}/file", f"{path}.file")
    os.unlink(f"{path}.file")
    os.rmdir(path)


def processes(pids: list[int] | None = None) -> dict[str, list[int]]:
    """The processes beside its own of which it could see more than ps shows, by what it could see."""
    looks: dict[str, Callable[[str], object]] = {
        "environ": lambda p: read_some(f"{p}/environ"),
        "maps": lambda p: read_some(f"{p}/maps"),
        "mem": lambda p: os.close(os.open(f"{p}/mem", os.O_RDWR)),
        "fd": lambda p: [os.readlink(f"{p}/fd/{number}") for number in os.listdir(f"{p}/fd")] or refuse(),
        "cwd": lambda p: os.listdir(f"{p}/cwd"),
        "root": lambda p: os.listdir(f"{p}/root"),
    }
    everyone = [int(name) for name in os.listdir("/proc") if name.isdecimal()] if pids is None else pids
    others = [pid for pid in everyone if pid != os.getpid()]
    return {
        name: [pid for pid in others if attempt(lambda pid=pid, look=look: look(f"/proc/{pid}")) == DONE]  # type: ignore[misc]
        for name, look in looks.items()
    }


def trace(pids: list[int]) -> dict[str, str]:
    """Attaches to processes as a debugger does, and lets go at once."""
    return {str(pid): attempt(lambda pid=pid: ptrace(pid)) for pid in pids}  # type: ignore[misc]


def ptrace(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    seize, detach = 0x4206, 17
    if libc.ptrace(seize, pid, None, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    libc.ptrace(detach, pid, None, None)


def signal(pids: list[int]) -> dict[str, str]:
    """Whether it may send signals to processes; sends none."""
    return {str(pid): attempt(lambda pid=pid: os.kill(pid, 0)) for pid in pids}  # type: ignore[misc]


def connect(addresses: list[str]) -> dict[str, str]:
    """Opens TCP connections to `host:port`; `@name` is an abstract unix socket."""
    return {address: attempt(lambda address=address: connect_one(address)) for address in addresses}  # type: ignore[misc]


def connect_one(address: str) -> None:
    if address.startswith("@"):
        with socket.socket(socket.AF_UNIX) as local:
            local.connect("\0" + address[1:])
        return
    socket.create_connection(split_address(address), timeout=5).close()


def detour(addresses: list[str]) -> dict[str, str]:
    """Reaches `host:port` in other ways than that, and sets up what would take such ways unseen."""
    ways: dict[str, Callable[[str, int], object]] = {
        "mptcp": lambda host, port: connect_socket(socket.socket(proto=MPTCP), host, port),
        "fast open": lambda host, port: socket.socket().sendto(b"x", FAST_OPEN, (host, port)),
        "fast open by message": lambda host, port: socket.socket().sendmsg([b"x"], [], FAST_OPEN, (host, port)),
        "fast open by connect": connect_with_data,
    }
    tried = {
        f"{name} to {address}": attempt(lambda way=way, address=address: way(*split_address(address)))  # type: ignore[misc]
        for name, way in ways.items()
        for address in addresses
    }
    return {**tried, "io_uring": attempt(set_up_ring)}


def split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def connect_socket(opened: socket.socket, host: str, port: int) -> None:
    with opened:
        opened.settimeout(5)
        opened.connect((host, port))


def connect_with_data(host: str, port: int) -> None:
    with socket.socket() as opened:
        opened.setsockopt(socket.IPPROTO_TCP, FAST_OPEN_CONNECT, 1)
        opened.connect((host, port))
        opened.send(b"x")


def set_up_ring() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(ctypes.c_long(IO_URING_SETUP), 8, ctypes.create_string_buffer(120))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.close(descriptor)


def spin(seconds: float = 1.0, processes: int = 1) -> float:
    """Computes without a pause in so many processes; the seconds of CPU time that it got."""
    until, before = time.monotonic() + seconds, cpu_seconds()
    children = []
    for _ in range(processes - 1):
        child = os.fork()
        if child == 0:
            break
        children.append(child)
    else:
        child = -1
    while time.monotonic() < until:
        pass
    if child == 0:
        os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    return cpu_seconds() - before


def cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def eat(mebibytes: int) -> int:
    """Takes memory and keeps it."""
    hoard.append(bytearray(b"x") * (mebibytes << 20))
    return sum(len(piece) for piece in hoard) >> 20


def scatter() -> list[int]:
    """Starts processes that leave its group, its session and its parentage, as daemons do; their pids."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        for _ in range(2):
            if os.fork() == 0:
                os.setsid()
                os.write(writer, f"{os.getpid()} ".encode())
                for descriptor in range(3):
                    os.close(descriptor)
                os.close(writer)
                time.sleep(600)
        os._exit(0)
    os.close(writer)
    os.wait()
    with os.fdopen(reader) as pids:
        return [int(pid) for pid in pids.read().split()]


def everything(
    paths: list[str] | None = None, folders: list[str] | None = None, addresses: list[str] | None = None
) -> dict[str, Any]:
    """All of it at once, at what is there to be had in a pod beside what the caller names."""
    return {
        "read": read([POD_TOKEN, "/var/run/secrets", "/run", "/root", "/home", "/tmp", "/var/lib", *(paths or [])]),
        "write": write(["/tmp", "/var/tmp", "/dev/shm", "/run", "/etc", "/usr", *(folders or [])]),
        "processes": processes(),
        "signal": signal([1, os.getppid()]),
        "trace": trace([1, os.getppid()]),
        "connect": connect(addresses or []),
        "detour": detour(addresses or []),
    }


TOOLS: dict[str, Callable[..., Any]] = {
    deed.__name__: deed
    for deed in (facts, read, write, processes, trace, signal, connect, detour, spin, eat, scatter, everything)
}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        return {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "probe", "version": "1"},
        }
    if method == "tools/list":
        schema = {"type": "object"}
        return {"tools": [{"name": n, "description": d.__doc__, "inputSchema": schema} for n, d in TOOLS.items()]}
    if method == "tools/call":
        result = TOOLS[params["name"]](**(params.get("arguments") or {}))
        return {"content": [{"type": "text", "text": json.dumps(result)}]}
    return None


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(message["method"], message.get("params") or {})
        reply = {"error": {"code": -32601, "message": "no such method"}} if result is None else {"result": result}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}), flush=True)


if __name__ == "__main__":
    main()
