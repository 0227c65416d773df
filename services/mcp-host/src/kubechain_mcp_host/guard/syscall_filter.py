"""A seccomp filter for the ways to a TCP port that Landlock does not see: it looks at ``connect`` of plain TCP sockets.

- MPTCP and SMC sockets are not TCP to it, and fall back to it with a server that does not know them (SMC has an address
  family and a protocol). Refused as on a kernel without them; programs then take TCP.
  https://docs.kernel.org/networking/mptcp.html, https://man7.org/linux/man-pages/man7/af_smc.7.html
- TCP Fast Open connects by sending (``MSG_FASTOPEN``). Refused as where it is switched off. TCP_FASTOPEN_CONNECT stays,
  because a ``connect`` comes first. https://docs.kernel.org/networking/ip-sysctl.html (tcp_fastopen)
- io_uring does all of these, and no filter sees what it is asked for. Refused as on a kernel without it.
- System calls of another ABI (32 bits, x32) have other numbers, and 32 bits of x86 one call for all of sockets, whose
  arguments no filter can read. All of them are refused.

https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

import ctypes
import errno
import os
import sys

_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

_LOAD = 0x20
_IF_EQUAL = 0x15
_IF_AT_LEAST = 0x35
_IF_ANY_BIT = 0x45
_RETURN = 0x06

_NUMBER = 0
_ARCHITECTURE = 4
_ARGUMENTS = 16
"""Offsets in struct seccomp_data. Of an argument, which has 64 bits, the kernel takes the lower 32 in all of these."""
_X32 = 0x40000000
"""The bit that all system calls of the x32 ABI have in their numbers."""

_AF_SMC = 43
_IPPROTO_SMC = 256
_IPPROTO_MPTCP = 262
_MSG_FASTOPEN = 0x20000000

# fmt: off
_NUMBERS = {
    "x86_64": {"socket": 41, "sendto": 44, "sendmsg": 46, "sendmmsg": 307, "io_uring_setup": 425},
    "aarch64": {"socket": 198, "sendto": 206, "sendmsg": 211, "sendmmsg": 269, "io_uring_setup": 425},
}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""https://github.com/torvalds/linux/blob/master/include/uapi/linux/audit.h"""
_REFUSED = (
    ("socket", 0, _IF_EQUAL, _AF_SMC, errno.EAFNOSUPPORT),
    ("socket", 2, _IF_EQUAL, _IPPROTO_SMC, errno.EPROTONOSUPPORT),
    ("socket", 2, _IF_EQUAL, _IPPROTO_MPTCP, errno.EPROTONOSUPPORT),
    ("sendto", 3, _IF_ANY_BIT, _MSG_FASTOPEN, errno.EOPNOTSUPP),
    ("sendmsg", 2, _IF_ANY_BIT, _MSG_FASTOPEN, errno.EOPNOTSUPP),
    ("sendmmsg", 3, _IF_ANY_BIT, _MSG_FASTOPEN, errno.EOPNOTSUPP),
)
"""The system call, the index of an argument, what is asked of it, and the error in answer to that."""
# fmt: on


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


_libc = ctypes.CDLL(None, use_errno=True)


def check() -> None:
    """Checks that there can be such a filter here. Raises OSError."""
    if sys.platform != "linux" or os.uname().machine not in _NUMBERS or sys.maxsize < 1 << 32:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    # Without a program: a kernel that knows filters says that it is not to be found there.
    _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, None, 0, 0)
    if ctypes.get_errno() != errno.EFAULT:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def build_filter(machine: str) -> "list[tuple[int, int, int, int]]":
    """The filter's instructions: code, how many to skip if true, and if false, and a value. Raises KeyError."""
    numbers = _NUMBERS[machine]
    refuse_abi = (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        refuse_abi,
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 0, 1, _X32),
        refuse_abi,
        (_IF_EQUAL, 0, 1, numbers["io_uring_setup"]),
        refuse_abi,
    ]
    for name, index, question, value, error in _REFUSED:
        program += [
            (_LOAD, 0, 0, _NUMBER),
            (_IF_EQUAL, 0, 3, numbers[name]),
            (_LOAD, 0, 0, _ARGUMENTS + 8 * index),
            (question, 0, 1, value),
            (_RETURN, 0, 0, _ERRNO | error),
        ]
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def filter_self() -> None:
    """Filters the system calls of this process and its future children, for good; the process has no_new_privs. Raises
    OSError.
    """
    instructions = [_Instruction(*instruction) for instruction in build_filter(os.uname().machine)]
    program = _Program(len(instructions), (_Instruction * len(instructions))(*instructions))
    if _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
