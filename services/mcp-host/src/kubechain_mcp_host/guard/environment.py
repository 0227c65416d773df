"""The server's environment on its way through the guard, ahead of everything else on the stdin that the two share.

It is whatever the MCPServer says, and the guard is not isolated: as its own environment it would have the loader run
what the server left in its folder, outside the isolation (LD_PRELOAD, LD_AUDIT, LD_LIBRARY_PATH, GCONV_PATH and more).
So the guard has a fixed one, and only exec is given the server's, once the child is isolated.
"""

import os

OF_GUARD = {"LC_ALL": "C.UTF-8"}
"""The guard's own environment, which says how it reads its command line."""


def pack(environment: "dict[str, str]") -> bytes:
    """The bytes that ``receive`` reads. Raises UnicodeEncodeError."""
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())


def receive(size: int) -> "dict[str, str] | None":
    """The server's environment; None when the host has gone before it had sent all of it. Takes no byte of what comes
    after it.
    """
    packed = bytearray()
    while len(packed) < size:
        chunk = os.read(0, size - len(packed))
        if not chunk:
            return None
        packed += chunk
    pairs = (os.fsdecode(bytes(pair)).partition("=") for pair in packed.split(b"\0"))
    return {name: value for name, _, value in pairs if name}
