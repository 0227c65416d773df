"""More replicas of a service beside the one of the cluster, as a Deployment would have them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.request import urlopen
from uuid import uuid4

from tests.e2e.support.cluster import Cluster

from kubechain_cli.localcluster.layout import Layout
from kubechain_cli.localcluster.nats_users import password_file
from kubechain_cli.localcluster.plan import service_kubeconfig
from kubechain_cli.localcluster.ports import choose_port
from kubechain_cli.localcluster.services import NAMESPACE, build_service_env, service_script
from kubechain_common.testing.eventually import eventually

READY_SECONDS = 60.0


@contextmanager
def more_replicas(cluster: Cluster, service: str, number: int, namespace: str, logs: Path) -> Iterator[list[str]]:
    """So many more, serving the namespace; the URLs of their health ports. They drain at the end."""
    taken: set[int] = set()
    with ExitStack() as stack:
        urls = []
        for index in range(1, number + 1):
            port = choose_port(taken)
            taken.add(port)
            log = stack.enter_context((logs / f"{service}-{index}.log").open("wb"))
            stack.callback(_end, _start(cluster, service, f"{service}-{index}", port, namespace, log))
            urls.append(f"http://127.0.0.1:{port}")
        for url in urls:
            eventually(lambda url=url: _is_ready(url), READY_SECONDS, what=f"a {service} at {url}")  # type: ignore[misc]
        yield urls


def read_metrics(url: str) -> str:
    """What a process shows to Prometheus."""
    with urlopen(f"{url}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def _start(
    cluster: Cluster, service: str, identity: str, port: int, namespace: str, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    nats_url = str(cluster.status()["natsUrl"])
    layout = Layout.at(cluster.state_dir)
    env = {
        **cluster.env,
        **build_service_env(
            service,
            kubeconfig=service_kubeconfig(layout, service),
            nats_url=nats_url,
            port=port,
            page_port=None,
            namespace=NAMESPACE,
            nats_password_file=password_file(layout, service),
            servers_data=None,
            base=cluster.env,
        ),
        "KUBECHAIN_POD_NAME": identity,
        "KUBECHAIN_WATCH_NAMESPACE": namespace,
    }
    return subprocess.Popen([str(service_script(service))], env=env, stdout=log, stderr=log)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    finally:
        process.kill()


def _is_ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


class Replica:
    """One more replica, which serves every namespace. It is ended by the context that started it."""

    def __init__(self, cluster: Cluster, service: str, identity: str, log: Path) -> None:
        self.service = service
        self.log = log
        port = choose_port(set())
        self.url = f"http://127.0.0.1:{port}"
        # A second page beside the cluster's own has to be somewhere else.
        alone = replace(cluster, env={**cluster.env, "KUBECHAIN_BRIDGE_PORT": "0"})
        with log.open("wb") as stream:
            self.process = _start(alone, service, identity, port, "", stream)

    @property
    def ready(self) -> bool:
        return _is_ready(self.url)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(10)

    def drain(self) -> None:
        """SIGTERM, and its end."""
        _end(self.process)


@contextmanager
def run_replicas(cluster: Cluster, services: Sequence[str], logs: Path) -> Iterator[list[Replica]]:
    """One more replica for each name in ``services``, started together and ready."""
    with ExitStack() as stack:
        replicas = []
        for index, service in enumerate(services):
            name = f"{service}-extra-{index}-{uuid4().hex[:4]}"
            replicas.append(Replica(cluster, service, name, logs / f"{name}.log"))
            stack.callback(replicas[-1].drain)
        for replica in replicas:
            eventually(lambda replica=replica: replica.ready, READY_SECONDS, what=f"{replica.log} ready")  # type: ignore[misc]
        yield replicas
