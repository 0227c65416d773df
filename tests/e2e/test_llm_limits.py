"""What a platform team sets about an LLM, over several replicas of llm-gateway, measured at the provider."""

from __future__ import annotations

import json
import math
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import Cluster
from tests.e2e.support.failures import assert_told
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.metered_llm import MeteredLLM, Refusal
from tests.e2e.support.replicas import more_replicas, read_metrics
from tests.e2e.support.witness import Witness
from tests.e2e.support.workspace import Workspace

from kubechain_common.messages.topology import LLM_MAX_IN_FLIGHT
from kubechain_common.testing.eventually import eventually
from kubechain_llm_gateway.admission.rate_limit import BURST

pytestmark = pytest.mark.e2e

SECONDS = 60.0
REPLICAS = 3
CLIENTS = 4
MANY_TASKS = 500
FALLEN_TASKS = 45
"""Enough for each replica to see five failures."""
RATE_TASKS = int(os.environ.get("KUBECHAIN_TEST_RATE_TASKS", "110"))
DOWN_SECONDS = float(os.environ.get("KUBECHAIN_TEST_DOWN_SECONDS", "8"))


class Place:
    """A namespace that ``REPLICAS`` gateways serve."""

    def __init__(self, workspace: Workspace, servers: BackgroundLoop, replicas: Sequence[str] = ()) -> None:
        self.workspace = workspace
        self.kubectl = workspace.kubectl
        self.replicas = replicas
        self._servers = servers

    def serve(self, **options: Any) -> MeteredLLM:
        return self._servers.enter(MeteredLLM(**options))

    def apply_llm(self, name: str, llm: MeteredLLM, *, wait: bool = True, **spec: Any) -> None:
        """Secret, LLM and Agent of one name."""
        built = manifests.llm(llm.url, name)
        built["spec"] |= spec
        self.kubectl.apply(
            manifests.secret("openai", OPENAI_API_KEY=self.workspace.key),
            built,
            manifests.agent(name, llmRef={"name": name}),
        )
        if wait:
            self.kubectl.wait(f"agent/{name}", timeout=60)

    def begin(self, agent: str, count: int) -> None:
        tasks = [json.dumps(manifests.task(f"{agent}-{n}", f"{agent}-{n}", agent)) for n in range(count)]
        texts = ["\n---\n".join(part) for start in range(CLIENTS) if (part := tasks[start::CLIENTS])]
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda text: self.kubectl("create", "-f", "-", input=text), texts))

    def detail_of(self, llm: str) -> str:
        return str(self.kubectl.get("llm", llm)["status"]["statusDetail"])

    def finished(self, agent: str, phase: str = "FinalAnswer") -> int:
        tasks = self.kubectl.list("task")
        return sum(
            task["spec"]["agentRef"]["name"] == agent and task.get("status", {}).get("phase") == phase for task in tasks
        )

    def wait_finished(self, agent: str, count: int, seconds: float = SECONDS) -> None:
        eventually(lambda: self.finished(agent) == count, seconds, what=f"{count} answers of {agent}", interval=0.2)


@pytest.fixture(scope="module")
def place(cluster: Cluster, servers: BackgroundLoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    namespace = f"e2e-{uuid4().hex[:8]}"
    admin = Kubectl(cluster.kubeconfig, "default")
    admin("create", "namespace", namespace)
    logs: Path = tmp_path_factory.mktemp("replicas")
    with more_replicas(cluster, "llm-gateway", REPLICAS - 1, namespace, logs) as urls:
        workspace = Workspace(cluster, servers, namespace)
        yield Place(workspace, servers, urls)
    # The Events of hundreds of Tasks that wait to be written would keep the next tests waiting.
    workspace.kill("task-controller")
    admin("delete", "namespace", namespace, "--wait=false")


def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    eventually(condition, seconds, what=what, interval=0.02)


def test_max_concurrency_holds_over_all_replicas_and_can_be_changed(place: Place) -> None:
    llm = place.serve(delay=1.0)
    place.apply_llm("narrow", llm, maxConcurrency=2)
    place.begin("narrow", 24)
    until(lambda: len(llm.calls) >= 2, "the first answers")
    assert llm.take_highest() == 2
    place.kubectl("patch", "llm", "narrow", "--type=merge", "-p", '{"spec": {"maxConcurrency": 4}}')
    until(lambda: llm.open == 4, "four at a time")
    place.wait_finished("narrow", 24)
    assert llm.take_highest() == 4
    assert len(llm.calls) == 24


@pytest.mark.failure("llm-paused")
def test_a_retry_after_is_honoured_by_all_replicas_at_once(place: Place) -> None:
    """A storm of refusals: 120 Tasks at a provider that takes 30 calls and then asks for eight seconds of peace.

    Half of a pause is left to a busy machine, to hear of it and to end what is on its way.
    """
    storm = Storm(quota=30, seconds=8.0)
    llm = place.serve(delay=0.02, rule=storm)
    place.apply_llm("stormy", llm)
    with Witness(place.kubectl) as witness:
        place.begin("stormy", 120)
        place.wait_finished("stormy", 120)
        assert_told("llm-paused", witness, *(f"stormy-{n}" for n in range(120)))
    refused = [call for call in llm.calls if call.status == 429]
    assert len([call for call in llm.calls if call.status == 200]) == 120
    assert refused, "no storm"
    for begin, end in storm.closed:
        late = [call for call in refused if (begin + end) / 2 < call.at < end]
        assert not late, f"{len(late)} calls came in the second half of a pause"
    assert len(refused) <= 120, "each call is refused about once at most"


class Storm:
    """So many calls are taken, then all are refused for so many seconds, and so on."""

    def __init__(self, quota: int, seconds: float) -> None:
        self._quota = self._left = quota
        self._seconds = seconds
        self._until = 0.0
        self.closed: list[tuple[float, float]] = []

    def __call__(self, at: float) -> Refusal | None:
        if at >= self._until and self._left > 0:
            self._left -= 1
            return None
        if at >= self._until:
            self._until, self._left = at + self._seconds, self._quota
            self.closed.append((at, self._until))
        return Refusal(429, "Rate limit reached.", max(0.001, self._until - at))


@pytest.mark.failure("llm-down")
def test_a_provider_that_is_down_loses_nothing_and_is_not_hammered(place: Place, servers: BackgroundLoop) -> None:
    llm = place.serve(delay=0.05)
    place.apply_llm("fallen", llm)
    with Witness(place.kubectl) as witness:
        servers.run(llm.stop())
        place.begin("fallen", 40)
        place.kubectl.wait("llm/fallen", "condition=Ready=False", timeout=SECONDS)
        place.kubectl.wait("agent/fallen", "condition=Ready=False", timeout=SECONDS)
        place.kubectl.apply(manifests.task("fallen-late", "fallen-late", "fallen"))
        llm.down = Refusal(503, "Out of order.")
        servers.run(llm.start())
        since = time.monotonic()
        until(lambda: time.monotonic() - since > DOWN_SECONDS, "the time that it is down", 2 * DOWN_SECONDS)
        assert place.finished("fallen") == 0
        during = [call for call in llm.calls if call.at > since]
        probes = [at for at in llm.listed if at > since]
        llm.down = None
        place.wait_finished("fallen", 41)
        place.kubectl.wait("llm/fallen", "condition=Ready=True")
        assert_told("llm-down", witness, "fallen", "fallen-late", *(f"fallen-{n}" for n in range(40)))
    answered = [call.message for call in llm.calls if call.status == 200]
    assert sorted(answered) == sorted({*answered}), "nobody was paid for twice"
    assert len(answered) == 41
    assert not during, f"{len(during)} calls while it was down"
    assert 1 <= len(probes) <= 2 + math.log2(DOWN_SECONDS), "by one replica, ever less often"


def most_within(times: Sequence[float], seconds: float) -> int:
    """The most that any so many seconds hold."""
    ordered = sorted(times)
    return max(bisect_left(ordered, start + seconds) - index for index, start in enumerate(ordered))


@pytest.mark.failure("llm-limited")
def test_the_rate_limit_is_kept_by_all_replicas_together(place: Place) -> None:
    """No minute, as the provider counts, has over a tenth more than the limit, and nothing of it is wasted.

    A short run has no minute; its seconds may have a tenth more, too, and the burst of a minute as it is.
    """
    per_minute = 300
    llm = place.serve(delay=0.1)
    place.apply_llm("limited", llm, rateLimit={"requestsPerMinute": per_minute})
    with Witness(place.kubectl) as witness:
        place.begin("limited", RATE_TASKS)
        place.wait_finished("limited", RATE_TASKS, SECONDS + RATE_TASKS * 60 / per_minute)
        assert_told("llm-limited", witness, *(f"limited-{n}" for n in range(RATE_TASKS)))
    times = [call.at for call in llm.calls]
    assert len(times) == RATE_TASKS
    span = max(times) - min(times)
    assert most_within(times, 60.0) <= per_minute * min(1.1, span / 60 * 1.1 + BURST / 60) + 1
    assert most_within(times, 10.0) <= per_minute / 60 * (10 + BURST) * 1.1
    assert span <= RATE_TASKS * 60 / per_minute * 1.1 + 2, f"{RATE_TASKS} calls took {span:.1f} s"
    metrics = read_metrics(place.replicas[0])
    labels = f'cause="rate limit",llm="limited",namespace="{place.workspace.namespace}"'
    assert f"kubechain_llm_requests_waiting{{{labels}}} 0.0" in metrics


def test_tokens_are_limited_by_what_the_provider_counts(place: Place) -> None:
    llm = place.serve(tokens=100)
    place.apply_llm("counted", llm, rateLimit={"tokensPerMinute": 30_000})  # five calls of this size a second
    place.begin("counted", 80)
    place.wait_finished("counted", 80)
    times = sorted(call.at for call in llm.calls)
    settled = times[20:]  # the first guesses are too high, so nothing is over the limit meanwhile
    assert most_within(times, 5.0) <= 5 * (5 + BURST) * 1.1 + 1
    assert (len(settled) - 1) / (settled[-1] - settled[0]) >= 5 * 0.8, "guesses come near to the truth"


@pytest.mark.failure("llm-fallback")
def test_a_fallback_answers_while_the_provider_is_down(place: Place, servers: BackgroundLoop) -> None:
    main, spare = place.serve(), place.serve()
    place.apply_llm("spare", spare)
    place.apply_llm("main", main, fallbacks=[{"name": "spare"}])
    with Witness(place.kubectl) as witness:
        main.down = Refusal(503, "Out of order.")
        place.begin("main", FALLEN_TASKS)
        place.wait_finished("main", FALLEN_TASKS)
        until(lambda: "UsingFallback" in witness.told("main"), "the word of the fallback")
        asked = len(main.calls)
        place.kubectl.apply(manifests.task("main-later", "main-later", "main"))
        place.wait_finished("main", FALLEN_TASKS + 1)
        assert len(main.calls) == asked, "nobody calls it while it is down"
        assert place.kubectl.get("llm", "main")["status"]["ready"], "it can be used, by its fallback"
        main.down = None
        until(lambda: place.detail_of("main") == "OpenAI API key validated successfully", "the provider's return")
        place.kubectl.apply(manifests.task("main-again", "main-again", "main"))
        place.wait_finished("main", FALLEN_TASKS + 2)
        assert_told("llm-fallback", witness, "main", "main-later", *(f"main-{n}" for n in range(FALLEN_TASKS)))
    assert len(spare.calls) == FALLEN_TASKS + 1
    assert [call.message for call in main.calls if call.status == 200] == ["main-again"]


def test_a_namespace_with_many_tasks_does_not_starve_one_with_one(
    new_workspace: Callable[[], Workspace], servers: BackgroundLoop
) -> None:
    """Both are served by the same replica, which makes as many calls at a time for the busy one as it may.

    It is not let go of these before the quiet one has its answer: who is starved never has it.
    """
    busy, quiet = Place(new_workspace(), servers), Place(new_workspace(), servers)
    slow, quick = busy.serve(), quiet.serve()
    busy.apply_llm("busy", slow)
    quiet.apply_llm("quiet", quick)
    slow.held = True
    busy.begin("busy", MANY_TASKS)
    until(lambda: slow.open == LLM_MAX_IN_FLIGHT, "a crowd of calls")
    quiet.begin("quiet", 1)
    quiet.wait_finished("quiet", 1)
    assert slow.open == LLM_MAX_IN_FLIGHT, "the crowd is still there"
    slow.held = False
    busy.wait_finished("busy", MANY_TASKS)
    assert len(slow.calls) == MANY_TASKS
