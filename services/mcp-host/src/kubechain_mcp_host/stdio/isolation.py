"""What isolated stdio servers may reach, and whether this machine can hold them to it (pure but for a look at
the kernel and one at /etc).

They read what programs need and what an image may be presumed to hold no secrets in; everything else, above all what
is mounted into the pod, is out of reach because nothing allows it. docs/decisions/0019-isolation-of-stdio-servers.md
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path
from urllib.parse import urlsplit

from kubechain_mcp_host.guard import landlock, syscall_filter

SYSTEM_PATHS = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system",
    "/sys/kernel/mm/transparent_hugepage",
)
# fmt: off
_ETC = (
    "alternatives", "bash.bashrc", "ca-certificates*", "crypto-policies", "debian_version", "fonts", "gai.conf",
    "gitconfig", "group", "host.conf", "hostname", "hosts", "inputrc", "java*", "ld.so.*", "ld-musl-*.path",
    "locale.*", "localtime", "lsb-release", "machine-id", "magic", "mailcap", "mime.types", "netconfig",
    "networks", "nodejs", "npmrc", "nsswitch.conf", "openssl", "os-release", "passwd", "pip.conf", "pki",
    "profile", "profile.d", "protocols", "python3*", "resolv.conf", "rpc", "services", "shells", "ssl",
    "terminfo", "timezone", "uv", "xdg",
)
# fmt: on
"""Parts of /etc that servers may read. Others may not be read, because people mount there what is secret."""
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_POD_SECRETS = "/var/run/secrets"
_NATS_PORT = 4222


@dataclass(frozen=True)
class Isolation:
    """How stdio servers are isolated. ``obstacle`` is a sentence when they can not be isolated as they should; then
    none is started.
    """

    data: Path
    readable: tuple[str, ...] = ()
    denied_ports: frozenset[int] = field(default_factory=frozenset)
    abi: int = 0
    filtered: bool = False
    """Whether system calls are filtered: those by which a port could be reached past Landlock."""
    obstacle: str = ""


def plan_isolation(
    environ: Mapping[str, str],
    *,
    data: Path,
    extra_readable: Iterable[str],
    nats_url: str,
    min_abi: int,
    find_abi: Callable[[], int] = landlock.find_abi,
    check_filter: Callable[[], None] = syscall_filter.check,
) -> Isolation:
    """How servers of this process are isolated."""
    certificates = (environ[name] for name in _CERTIFICATES if environ.get(name))
    etc = sorted(path for pattern in _ETC for path in glob(f"/etc/{pattern}"))
    readable = tuple(dict.fromkeys((*SYSTEM_PATHS, *etc, sys.prefix, sys.base_prefix, *certificates, *extra_readable)))
    try:
        abi = find_abi()
    except OSError as error:
        return Isolation(data, obstacle=_describe_missing(error))
    filtered = _succeeds(check_filter)
    obstacle = (
        _find_old_kernel(abi, min_abi) or _find_unfiltered(filtered, min_abi) or _find_exposed(readable, data, environ)
    )
    return Isolation(data, readable, find_nats_ports(nats_url), min(abi, landlock.WHOLE_ABI), filtered, obstacle)


def _succeeds(check: Callable[[], None]) -> bool:
    try:
        check()
    except OSError:
        return False
    return True


def is_below(path: str, folders: Iterable[str]) -> bool:
    """Whether the path, links resolved, is one of the folders or in one."""
    real = os.path.realpath(path)
    parents = {real, *(str(parent) for parent in Path(real).parents)}
    return any(folder in parents or os.path.realpath(folder) in parents for folder in folders)


def find_nats_ports(url: str) -> frozenset[int]:
    """The ports of a NATS URL, or of several with commas between them."""
    ports = set()
    for part in filter(None, (part.strip() for part in url.split(","))):
        try:
            ports.add(urlsplit(part if "://" in part else f"nats://{part}").port or _NATS_PORT)
        except ValueError:  # not a port; who connects says so
            ports.add(_NATS_PORT)
    return frozenset(ports)


def _find_exposed(readable: Iterable[str], data: Path, environ: Mapping[str, str]) -> str:
    """A sentence, if something that servers must not read lies where they may."""
    folders = tuple(readable)
    for path in (_POD_SECRETS, str(data), *_secret_files(environ)):
        if is_below(path, folders):
            inside = next(folder for folder in folders if is_below(path, (folder,)))
            return (
                f"Stdio servers can not be isolated: {path} must be hidden from them, but they may read {inside}. "
                "Put it elsewhere (below /var/run/kubechain, say), or change KUBECHAIN_MCP_READABLE."
            )
    return ""


def _secret_files(environ: Mapping[str, str]) -> list[str]:
    """Where our own credentials lie."""
    kubeconfigs = environ.get("KUBECONFIG", "").split(os.pathsep)
    files = (
        value for name, value in environ.items() if fnmatchcase(name, "KUBECHAIN_*_FILE") and "CA_FILE" not in name
    )
    return [path for path in (*kubeconfigs, *files) if path]


def _find_old_kernel(abi: int, min_abi: int) -> str:
    if abi >= min_abi:
        return ""
    missing = [what for since, what in _BROUGHT.items() if abi < since <= min_abi]
    return (
        f"Stdio servers can not be isolated: this node's kernel ({os.uname().release}) has Landlock ABI {abi}, and "
        f"{min_abi} is asked for, it lacks {' and '.join(missing)}. Run mcp-host on Linux 6.12 or newer, or "
        "set KUBECHAIN_MCP_LANDLOCK_ABI to what you have and do without."
    )


def _find_unfiltered(filtered: bool, min_abi: int) -> str:
    if filtered or min_abi < landlock.NET_ABI:
        return ""
    kernel, machine = os.uname().release, os.uname().machine
    return (
        f"Stdio servers can not be isolated: mcp-host can not filter system calls by seccomp here (Linux {kernel}, "
        f"{machine}), and Landlock alone does not close the port of NATS. Run mcp-host on x86_64 or aarch64 with "
        f"seccomp filters, or set KUBECHAIN_MCP_LANDLOCK_ABI to {landlock.NET_ABI - 1} and do without."
    )


_BROUGHT = {
    2: "moving files between folders",
    3: "control of truncation",
    4: "control of TCP ports",
    5: "control of devices",
    6: "control of signals and abstract sockets",
}
"""What each ABI brought. https://docs.kernel.org/userspace-api/landlock.html#previous-limitations"""


def _describe_missing(error: OSError) -> str:
    if error.errno == errno.EOPNOTSUPP:
        why = "Landlock is not switched on in this node's kernel (add it to the boot parameter lsm=)"
    elif error.errno == errno.EPERM:
        why = (
            "a seccomp profile keeps Landlock from mcp-host (the default of containerd 1.7 and of Docker 23 allows it)"
        )
    else:
        why = (
            "this node's kernel has no Landlock, or a seccomp profile hides it (Linux 6.12 and containerd 1.7 have it)"
        )
    return (
        f"Stdio servers can not be isolated: {why}. Run mcp-host where it is, or set KUBECHAIN_MCP_ISOLATION=none if "
        "every server may read what mcp-host can."
    )
