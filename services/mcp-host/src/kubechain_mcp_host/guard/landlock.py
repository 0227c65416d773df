"""Landlock by its three system calls: what a process and its children may still do, taken away without any privilege.

A right that a ruleset handles is denied unless a rule of it allows it. What comes with every ruleset, asked for or
not: its processes can neither trace nor look into those outside it, so that memory, environ, fd, root and cwd of the
others in /proc are closed to them (their cmdline and status are not).
https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import errno
import os
import sys

_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522
_PATH_BENEATH = 1
_NET_PORT = 2

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REFER = 1 << 13
TRUNCATE = 1 << 14
IOCTL_DEV = 1 << 15
READ = EXECUTE | READ_FILE | READ_DIR
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights of files; all others are rights of folders."""

_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many bits of rights to files there are, by the ABI that brought the last of them."""
NET_ABI = 4
"""The ABI from which on there are rules for ports."""
_SCOPED_ABI = 6
_CONNECT_TCP = 1 << 1
_SCOPES = 0b11
"""Abstract unix sockets, and signals."""

WHOLE_ABI = 6
"""From here on (Linux 6.12) all that isolation consists of is there."""


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _layout_ = "ms"
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _NetPort(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


_Capabilities = ctypes.c_uint32 * 6
"""Effective, permitted and inheritable, twice."""

_libc = ctypes.CDLL(None, use_errno=True)


def find_abi() -> int:
    """The kernel's version of Landlock's ABI. Raises OSError: ENOSYS (too old, built without, or kept from us by a
    seccomp filter, which may say EPERM), EOPNOTSUPP (not switched on at boot).
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))


def file_rights(abi: int) -> int:
    """All rights to files that a ruleset of that ABI can handle."""
    return (1 << max((bits for since, bits in _FS_RIGHTS.items() if since <= abi), default=0)) - 1


def scopes(abi: int) -> int:
    """Everything that such a ruleset can keep among its own processes."""
    return _SCOPES if abi >= _SCOPED_ABI else 0


def build_file_rules(abi: int, readable: "list[str]", devices: "list[str]", writable: "list[str]") -> int:
    """A ruleset's descriptor: read and execute what is ``readable``, use ``devices``, do anything in what is
    ``writable``. What does not exist is left out. Raises OSError.
    """
    rights = file_rights(abi)
    ruleset = _create(rights, 0, scopes(abi))
    for paths, allowed in ((readable, READ), (devices, _OF_FILES & ~EXECUTE), (writable, rights)):
        for path in paths:
            _allow_path(ruleset, path, allowed & rights)
    return ruleset


def build_port_rules(abi: int, denied: "frozenset[int]") -> int:
    """The descriptor of a ruleset under which TCP connects to every port but those; -1: this ABI has no such rules.

    There are no ranges, so this takes 65,535 calls, about 0.2 seconds. It can be applied any number of times, by any
    process that inherits it.
    """
    if abi < NET_ABI:
        return -1
    # A ruleset that says nothing of moving files between folders forbids it.
    ruleset = _create(REFER, _CONNECT_TCP, 0)
    _allow_path(ruleset, "/", REFER)
    rule = _NetPort(_CONNECT_TCP, 0)
    pointer = ctypes.byref(rule)
    for port in range(1, 65536):
        if port not in denied:
            rule.port = port
            _call(_ADD_RULE, ruleset, _NET_PORT, pointer, ctypes.c_uint32(0))
    return ruleset


def restrict_self(rulesets: "list[int]") -> None:
    """Applies them to this process and its future children, for good. Raises OSError.

    Each one after the first copies all rules of those before it, so the long one comes last. Capabilities go too,
    where there are any: CAP_PERFMON looks into other processes whatever Landlock says (mm_access in kernel/fork.c).
    """
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _error()
    if _libc.capset(ctypes.byref(_CapabilityHeader(_CAPABILITY_VERSION, 0)), ctypes.byref(_Capabilities())):
        raise _error()
    for ruleset in rulesets:
        _call(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0))


def _create(fs: int, net: int, scoped: int) -> int:
    attributes = _RulesetAttributes(fs, net, scoped)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    return _call(_CREATE_RULESET, ctypes.byref(attributes), size, ctypes.c_uint32(0))


def _allow_path(ruleset: int, path: str, allowed: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what can not be reached needs no rule
    try:
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            allowed &= _OF_FILES
        rule = _PathBeneath(allowed, descriptor)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
