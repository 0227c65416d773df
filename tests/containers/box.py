"""A container of the tests: run as a cluster would run it; it can be killed, frozen and cut off."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from docker.errors import APIError
from docker.models.containers import Container
from docker.types import EndpointConfig, Mount
from testcontainers.core.container import DockerContainer
from tests.containers.place import Place

HTTP_SECONDS = 3.0
FREEZE_ATTEMPTS = 5
_INTERVAL = 0.05


class Box:
    """One container with an address of its own, which it keeps when it is started again."""

    def __init__(
        self,
        place: Place,
        name: str,
        image: str,
        *,
        command: list[str] | None = None,
        entrypoint: list[str] | None = None,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        writable: Mapping[str, str] | None = None,
        volumes: tuple[str, ...] = (),
        aliases: tuple[str, ...] = (),
    ) -> None:
        """``files`` and ``writable`` map paths of this machine to paths in the container.

        ``volumes`` are paths that outlive a death.
        """
        self.name = name
        self.address = place.take_address()
        self._place = place
        self._aliases = [name, *aliases]
        self._container = DockerContainer(image, env=dict(env or {}))
        if command is not None:
            self._container.with_command(command)
        for mode, mounts in (("ro", files), ("rw", writable)):
            for here, there in (mounts or {}).items():
                self._container.with_volume_mapping(here, there, mode)
        self._container.with_tmpfs_mount("/tmp", "mode=1777,exec")
        self._container.with_kwargs(
            entrypoint=entrypoint,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mounts=[Mount(path, None) for path in volumes],
            network=place.network.name,
            networking_config={place.network.name: self._endpoint()},
            labels={"kubechain.tests": place.network.name},
        )

    def __enter__(self) -> Box:
        self._container.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._container.stop()

    def set_env(self, name: str, value: str) -> None:
        """Before it is started."""
        self._container.with_env(name, value)

    @property
    def _wrapped(self) -> Container:
        return self._container.get_wrapped_container()

    # --- what is done to it ---

    def kill(self) -> None:
        """SIGKILL."""
        self._wrapped.kill()

    def start(self) -> None:
        """After a death or an end."""
        self._wrapped.start()

    def stop(self, seconds: int) -> float:
        """SIGTERM, and SIGKILL after ``seconds``; how long it took."""
        began = time.monotonic()
        self._wrapped.stop(timeout=seconds)
        return time.monotonic() - began

    def pause(self) -> None:
        """Frozen: its connections stay open, and nothing answers.

        On a busy machine the engine may fail to catch all processes at once; it lets them go on then.
        """
        for attempt in range(1, FREEZE_ATTEMPTS + 1):
            try:
                self._wrapped.pause()
            except APIError as error:
                if attempt == FREEZE_ATTEMPTS or "unable to freeze" not in str(error):
                    raise
            else:
                return

    def unpause(self) -> None:
        self._wrapped.unpause()

    def cut(self) -> None:
        """Off the network, without a word to whoever it is connected with."""
        self._place.network._unwrap_network.disconnect(self._wrapped)

    def mend(self) -> None:
        """On the network again, under the same names and address."""
        self._place.network._unwrap_network.connect(self._wrapped, ipv4_address=self.address, aliases=self._aliases)

    # --- what can be seen of it ---

    def get(self, path: str, port: int = 8080) -> int:
        """The status of the answer; 0 when there is none."""
        try:
            with urllib.request.urlopen(f"http://{self.address}:{port}{path}", timeout=HTTP_SECONDS) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def read(self, path: str, port: int) -> Any:
        """The JSON behind the path. Raises OSError."""
        with urllib.request.urlopen(f"http://{self.address}:{port}{path}", timeout=HTTP_SECONDS) as answer:
            return json.load(answer)

    def run(self, *command: str) -> tuple[int, str]:
        """(exit code, output) of a command in the container."""
        done = self._container.exec(list(command))
        return int(done.exit_code or 0), done.output.decode("utf-8", "replace").strip()

    def logs(self) -> str:
        return str(self._wrapped.logs().decode("utf-8", "replace"))

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        self._wrapped.reload()
        state = self._wrapped.attrs["State"]
        return None if state["Running"] else int(state["ExitCode"])

    def _endpoint(self) -> EndpointConfig:
        return EndpointConfig(self._place.api_version, aliases=self._aliases, ipv4_address=self.address)


def await_that(what: str, condition: Callable[[], bool], seconds: float, box: Box | None = None) -> None:
    """Returns once the condition holds. Fails when it does not within ``seconds``, with the last words of ``box``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}\n{box.logs()[-2000:] if box else ''}")
        time.sleep(_INTERVAL)
