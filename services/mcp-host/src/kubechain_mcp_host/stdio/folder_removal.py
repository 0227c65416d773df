"""Removes a folder that was filled by somebody who may mean harm: nested a million levels deep, with a million entries
side by side, closed to everybody, full of links.

Nothing here grows with what is found, neither memory, nor open files, nor the stack: a folder inside another one is
moved up to the top before anybody looks into it. All is done relative to open folders, so that no link is followed and
no path becomes too long. What can not be removed does not keep the rest.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def remove_folder(path: str) -> None:
    """Raises OSError, FileNotFoundError if it is not there, when all that can be removed of it is."""
    with _opened(path) as top:
        while _Round(top).makes_progress():
            pass
    os.rmdir(path)


class _Round:
    """One way through what lies in the top folder."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._progress = False
        self._failure: OSError | None = None

    def makes_progress(self) -> bool:
        """Goes through the folder once. False when nothing was left in it; raises OSError when nothing of it can be
        removed.
        """
        with os.scandir(self._top) as entries:
            for entry in entries:
                with self._trying():
                    if entry.is_dir(follow_symlinks=False):
                        self._empty(entry.name)
                        os.rmdir(entry.name, dir_fd=self._top)
                    else:
                        os.unlink(entry.name, dir_fd=self._top)
        if self._failure is not None and not self._progress:
            raise self._failure
        return self._progress

    def _empty(self, name: str) -> None:
        with _opened(name, self._top) as folder, os.scandir(folder) as entries:
            for entry in entries:
                with self._trying():
                    if entry.is_dir(follow_symlinks=False):
                        self._lift(entry.name, folder)
                    else:
                        os.unlink(entry.name, dir_fd=folder)

    def _lift(self, name: str, folder: int) -> None:
        with _unlocked(name, folder):  # whoever moves a folder has to be allowed to write to it
            os.rename(name, secrets.token_hex(8), src_dir_fd=folder, dst_dir_fd=self._top)

    @contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failure = error
        else:
            self._progress = True


@contextmanager
def _opened(name: str, parent: int | None = None) -> Iterator[int]:
    with _unlocked(name, parent) as handle:
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _unlocked(name: str, parent: int | None = None) -> Iterator[int]:
    """A descriptor of the folder that is good for nothing but to find it again; its owner may do anything in it now."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        with suppress(PermissionError):  # not ours: perhaps it is open enough
            os.chmod(f"/proc/self/fd/{handle}", 0o700)  # fchmod does not take such a descriptor
        yield handle
    finally:
        os.close(handle)
