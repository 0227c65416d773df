"""Folders that deleted servers leave behind, which may have filled them as they liked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubechain_mcp_host.stdio.folder_removal import remove_folder
from kubechain_mcp_host.stdio.isolation import Isolation
from kubechain_mcp_host.stdio.launch import StdioLauncher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are there such folders")

UID = "0b0e8a5e-6f0f-4c58-9a47-3c4a3c1c8f11"
OTHER = "22222222-2222-2222-2222-222222222222"

NEST = """
import os, sys
os.makedirs(sys.argv[1])
os.chdir(sys.argv[1])
for _ in range(1500):
    parent = os.open(".", os.O_RDONLY)
    os.mkdir("d")
    os.chdir("d")
    os.fchmod(parent, 0)
    os.close(parent)
os.chdir("/")
"""
FORGET = """
import asyncio, pathlib, sys
from kubechain_mcp_host.stdio.isolation import Isolation
from kubechain_mcp_host.stdio.launch import StdioLauncher
asyncio.run(StdioLauncher({}, Isolation(pathlib.Path(sys.argv[1]))).forget_others(set()))
"""
UNPRIVILEGED = "from kubechain_mcp_host.guard.landlock import restrict_self; restrict_self([])\n"
"""Root without its capabilities is bound by modes like everybody else."""


def run(code: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", UNPRIVILEGED + code, str(path)], check=True, timeout=60)


@pytest.fixture
def nest(tmp_path: Path) -> Iterator[Path]:
    """Folders in each other, all of which are closed; what a test leaves of them pytest could not remove."""
    run(NEST, tmp_path / UID)
    yield tmp_path
    subprocess.run(["rm", "-rf", str(tmp_path / UID)], check=True)


def test_folders_nested_without_an_end_and_closed_to_everybody(nest: Path) -> None:
    (nest / OTHER).mkdir()
    run(FORGET, nest)
    assert os.listdir(nest) == []


def test_many_folders_side_by_side_and_below_each_other(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for number in range(300):
        (top / f"{number}" / "inner" / "most").mkdir(parents=True)
        (top / f"{number}" / "inner" / "file").write_text("x")
    remove_folder(str(top))
    assert os.listdir(tmp_path) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    outside.mkdir(mode=0o755)
    (outside / "kept").write_text("x")
    (top / "inner").mkdir(parents=True)
    for folder in (top, top / "inner"):
        (folder / "to-folder").symlink_to(outside)
        (folder / "to-file").symlink_to(outside / "kept")
        (folder / "to-nothing").symlink_to("nothing")
        os.link(outside / "kept", folder / "hard")
        os.mkfifo(folder / "fifo")
        (folder / os.fsdecode(b"odd\n\xff")).write_text("x")
    remove_folder(str(top))
    assert os.listdir(tmp_path) == ["outside"]
    assert os.listdir(outside) == ["kept"]
    assert outside.stat().st_mode & 0o777 == 0o755
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        remove_folder(str(tmp_path / "link"))
    assert os.listdir(outside) == ["kept"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes what others can not remove")
def test_what_can_not_be_removed_does_not_keep_the_rest(tmp_path: Path) -> None:
    for folder in (tmp_path / UID / "theirs", tmp_path / UID / "inner" / "theirs"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
        os.chown(folder, 1, 1)
    (tmp_path / UID / "inner" / "ours" / "more").mkdir(parents=True)
    (tmp_path / OTHER).mkdir()
    run(FORGET, tmp_path)
    left = [str(path.relative_to(tmp_path / UID)) for path in tmp_path.rglob("*") if path.name != UID]
    assert sorted(left) == ["inner", "inner/theirs", "inner/theirs/file", "theirs", "theirs/file"]


async def test_what_is_no_folder_does_not_keep_the_others(tmp_path: Path) -> None:
    (tmp_path / UID).write_text("x")
    (tmp_path / OTHER).mkdir()
    await StdioLauncher({}, Isolation(tmp_path)).forget_others(set())
    assert os.listdir(tmp_path) == [UID]
