"""The folder that an isolated stdio server has for itself: home, caches, temporary files, working directory.

It is named by the MCPServer's uid, so that no other server ever has had it, stays as long as the MCPServer (so a
restart finds its downloads again), and goes with it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from kubechain_mcp_host.stdio.folder_removal import remove_folder

_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ServerHomes:
    """The folders below ``root``, which nobody else may use."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path_of(self, uid: str) -> Path:
        """The server's folder, which is below the root whatever the uid looks like."""
        return self.root / (uid if _UID.fullmatch(uid) else hashlib.sha256(uid.encode()).hexdigest())

    def make(self, uid: str) -> Path:
        """The folder of the MCPServer with that uid. Raises OSError."""
        home = self.path_of(uid)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "tmp").mkdir(mode=0o700, exist_ok=True)
        return home

    def remove(self, uid: str) -> None:
        """No process of the server may be left. Raises OSError when something can not be removed."""
        with suppress(FileNotFoundError):
            remove_folder(str(self.path_of(uid)))

    def find_leftovers(self, uids: Collection[str]) -> list[str]:
        """The uids of folders whose MCPServers are none of those; what is no uid is not ours."""
        try:
            names = os.listdir(self.root)
        except OSError:
            return []
        return [name for name in names if _UID.fullmatch(name) and name not in uids]


def build_home_environment(home: Path) -> dict[str, str]:
    """Everything that would otherwise lead a server, or its package runner, to a folder that it can not reach."""
    return {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "UV_CACHE_DIR": str(home / ".cache/uv"),
        "UV_TOOL_DIR": str(home / ".local/share/uv/tools"),
        "UV_TOOL_BIN_DIR": str(home / ".local/bin"),
        "UV_PYTHON_INSTALL_DIR": str(home / ".local/share/uv/python"),
        "PIP_CACHE_DIR": str(home / ".cache/pip"),
        "npm_config_cache": str(home / ".npm"),
        "NPM_CONFIG_CACHE": str(home / ".npm"),
    }
