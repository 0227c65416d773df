"""What a provider can do wrong, row by row of docs/failures.md: the whole product against a server that misbehaves.

The Tasks of the first table run all at once, each with a conversation of its own, so that their back-offs pass
together; each test then looks at its own Task.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import uuid4

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.background import BackgroundLoop
from tests.e2e.support.cluster import SERVICES, Cluster
from tests.e2e.support.failures import assert_told, failure_case
from tests.e2e.support.faulty_llm import DONE, Answer, Asked, FaultyLLM, call_tools, refuse, say, tool_call
from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.witness import Witness
from tests.e2e.support.workspace import Workspace, tool_messages

from kubechain_common.testing.eventually import eventually

pytestmark = pytest.mark.e2e

SECONDS = 40.0
OPENAI, ANTHROPIC = "openai", "anthropic"
FAILED = None
"""In place of an output."""

LONG_NAME = "lookup_" + "x" * 80
BUSY = "The server had an error while processing your request."
CUT_TEXT = {"content": [{"type": "text", "text": "half an ans"}]}
CUT_CALL = {"content": [{"type": "tool_use", "id": "toolu_1", "name": "delete", "input": {}}]}
QUOTA = {"error": {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": None}}
NO_SUCH_TOOL = [tool_call("same", "nobody__nothing"), tool_call("same", "nobody__nothing")]


def in_three_seconds() -> Mapping[str, str]:
    return {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)}


def many_calls(count: int) -> Answer:
    return call_tools(*(tool_call(f"call_{n}", "nobody__nothing") for n in range(count)))


ALL_AT_ONCE = [
    failure_case("llm-400", OPENAI, [refuse(400, "This model's maximum context length is 8192 tokens.")], FAILED),
    failure_case("llm-400", ANTHROPIC, [refuse(400, "This model's maximum context length is 8192 tokens.")], FAILED),
    failure_case("llm-401", OPENAI, [refuse(401, "Incorrect API key provided.")], FAILED),
    failure_case("llm-401", ANTHROPIC, [refuse(401, "Incorrect API key provided.")], FAILED),
    failure_case("llm-403", OPENAI, [refuse(403, "Your region is not supported.")], FAILED),
    failure_case("llm-403", ANTHROPIC, [refuse(403, "Your region is not supported.")], FAILED),
    failure_case("llm-404", OPENAI, [refuse(404, "The model does not exist.")], FAILED),
    failure_case("llm-404", ANTHROPIC, [refuse(404, "The model does not exist.")], FAILED),
    failure_case("llm-413", OPENAI, [refuse(413, "Request exceeds the maximum size.")], FAILED),
    failure_case("llm-413", ANTHROPIC, [refuse(413, "Request exceeds the maximum size.")], FAILED),
    failure_case("llm-422", OPENAI, [refuse(422, "top_k is not supported.")], FAILED),
    failure_case("llm-408", OPENAI, [refuse(408, "Request timed out."), refuse(409, "Conflict."), DONE], "done"),
    failure_case("llm-429", OPENAI, [refuse(429, "Rate limit reached.", {"Retry-After": "2"}), DONE], "done"),
    failure_case("llm-429", ANTHROPIC, [refuse(429, "Rate limit reached.", {"Retry-After": "2"}), DONE], "done"),
    failure_case("llm-429-date", OPENAI, [refuse(429, "Rate limit reached.", in_three_seconds), DONE], "done"),
    failure_case("llm-quota", OPENAI, [Answer(QUOTA, 429, {"Retry-After": "1"})], FAILED),
    failure_case("llm-500", OPENAI, [refuse(500, BUSY), DONE], "done"),
    failure_case("llm-500", ANTHROPIC, [refuse(500, BUSY), DONE], "done"),
    failure_case("llm-503", OPENAI, [refuse(503, "The engine is overloaded."), DONE], "done"),
    failure_case("llm-529", ANTHROPIC, [refuse(529, "Overloaded"), DONE], "done"),
    failure_case("llm-error-page", OPENAI, [Answer("<html><h1>Bad Gateway</h1></html>", 502), DONE], "done"),
    failure_case("llm-error-page", ANTHROPIC, [Answer("<html><h1>Bad Gateway</h1></html>", 502), DONE], "done"),
    failure_case("llm-error-in-200", OPENAI, [refuse(200, "Upstream is busy."), DONE], "done"),
    failure_case("llm-error-in-200", ANTHROPIC, [refuse(200, "Upstream is busy."), DONE], "done"),
    failure_case("llm-broken-json", OPENAI, [Answer('{"choices": [{"mess'), DONE], "done"),
    failure_case("llm-broken-json", ANTHROPIC, [Answer('{"content": [{"ty'), DONE], "done"),
    failure_case("llm-no-choice", OPENAI, [Answer({"choices": []}), DONE], "done"),
    failure_case("llm-no-choice", ANTHROPIC, [Answer({"type": "message"}), DONE], "done"),
    failure_case("llm-empty-answer", OPENAI, [say("")], FAILED),
    failure_case("llm-empty-answer", ANTHROPIC, [Answer({"content": [], "stop_reason": "end_turn"})], FAILED),
    failure_case("llm-reply-cut", OPENAI, [Answer(DONE.body, how="cut"), DONE], "done"),
    failure_case("llm-reply-cut", ANTHROPIC, [Answer(DONE.body, how="cut"), DONE], "done"),
    failure_case("llm-hangs-up", OPENAI, [Answer(how="hang up"), DONE], "done"),
    failure_case("llm-truncated", OPENAI, [say("half an ans", "length")], "half an ans"),
    failure_case("llm-truncated", ANTHROPIC, [Answer({**CUT_TEXT, "stop_reason": "max_tokens"})], "half an ans"),
    failure_case("llm-truncated-call", OPENAI, [call_tools(*NO_SUCH_TOOL, finish_reason="length")], FAILED),
    failure_case("llm-truncated-call", ANTHROPIC, [Answer({**CUT_CALL, "stop_reason": "max_tokens"})], FAILED),
    failure_case("llm-filter", OPENAI, [say("half an ans", "content_filter")], "half an ans"),
    failure_case("llm-filter-all", OPENAI, [say("", "content_filter")], FAILED),
    failure_case("llm-refusal", OPENAI, [say("", refusal="I will not do that.")], "I will not do that."),
    failure_case("llm-refusal", ANTHROPIC, [Answer({**CUT_TEXT, "stop_reason": "refusal"})], "half an ans"),
    failure_case("llm-call-ids", OPENAI, [call_tools(*NO_SUCH_TOOL, tool_call(None, "nobody__nothing")), DONE], "done"),
    failure_case("llm-unknown-tool", OPENAI, [many_calls(1), DONE], "done"),
    failure_case("llm-long-tool-name", OPENAI, [call_tools(tool_call("call_1", LONG_NAME)), DONE], "done"),
    failure_case("llm-many-calls", OPENAI, [many_calls(200), DONE], "done"),
    failure_case("llm-too-many-calls", OPENAI, [many_calls(257)], FAILED),
    failure_case("llm-too-long", OPENAI, [say("x" * 1_048_577)], FAILED),
    failure_case("llm-quotes-key", OPENAI, [refuse(400, "Key <key> may not use this model.")], FAILED),
    failure_case("llm-quotes-key", ANTHROPIC, [refuse(400, "Key <key> may not use this model.")], FAILED),
]


class Ward:
    """A namespace with a provider that misbehaves, and a witness to what is told of it."""

    def __init__(self, workspace: Workspace, llm: FaultyLLM, witness: Witness) -> None:
        self.workspace = workspace
        self.kubectl = workspace.kubectl
        self.llm = llm
        self.witness = witness

    def apply_agent(self, name: str, *, wait: bool = True, url: str = "", **spec: Any) -> None:
        """Secret, LLM and Agent of one name."""
        self.kubectl.apply(self.secret(name), self.build_llm(name, url, **spec), self.build_agent(name))
        if wait:
            self.kubectl.wait(f"agent/{name}")

    def secret(self, name: str, key: str = "") -> manifests.Object:
        return manifests.secret(name, OPENAI_API_KEY=key or self.workspace.key)

    def build_llm(self, name: str, url: str = "", **spec: Any) -> manifests.Object:
        base_url = url or (self.llm.anthropic_url if spec.get("provider") == ANTHROPIC else self.llm.url)
        full = {
            "provider": OPENAI,
            "parameters": {"model": "gpt-4o", "baseUrl": base_url},
            "apiKeyFrom": {"secretKeyRef": {"name": name, "key": "OPENAI_API_KEY"}},
            **spec,
        }
        return manifests.build("LLM", name, full)

    def build_agent(self, name: str) -> manifests.Object:
        return manifests.agent(name, llmRef={"name": name})

    def begin(self, name: str, *answers: Answer, agent: str = "", **spec: Any) -> None:
        """A Task of its own name's Agent, and what its provider answers."""
        self.llm.plan(name, answers)
        self.kubectl.apply(manifests.task(name, name, agent or name, **spec))

    def finish(self, task: str, phase: str = "FinalAnswer") -> dict[str, Any]:
        """The Task once it is in the phase. The witness knows, and no test need start a kubectl for it."""

        def finished() -> dict[str, Any]:
            seen = self.witness.latest("Task", task)
            return seen if seen.get("status", {}).get("phase") == phase else {}

        return eventually(finished, SECONDS, what=lambda: f"{phase} of {self.witness.latest('Task', task)}")

    def wait_asked(self, message: str, times: int = 1) -> list[Asked]:
        """The requests of the conversation, once there are so many."""

        def asked() -> list[Asked]:
            so_far = self.llm.asked(message)
            return so_far if len(so_far) >= times else []

        return eventually(asked, SECONDS, what=f"request {times} of {message}")

    def wait_told(self, words: str, *names: str) -> None:
        eventually(
            lambda: any(words in text for text in self.witness.told(*names)),
            SECONDS,
            what=lambda: f"{words!r} told of {names}; told so far: {self.witness.told(*names)}",
        )


@pytest.fixture(scope="module")
def ward(cluster: Cluster, servers: BackgroundLoop) -> Iterator[Ward]:
    namespace = f"e2e-{uuid4().hex[:8]}"
    admin = Kubectl(cluster.kubeconfig, "default")
    admin("create", "namespace", namespace)
    workspace = Workspace(cluster, servers, namespace)
    with Witness(workspace.kubectl) as witness:
        yield Ward(workspace, servers.enter(FaultyLLM()), witness)
    admin("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="module")
def pids(cluster: Cluster) -> dict[str, int]:
    """The processes of the services before anything went wrong."""
    return read_pids(cluster)


def read_pids(cluster: Cluster) -> dict[str, int]:
    return {p["name"]: p["pid"] for p in cluster.status()["processes"] if p["name"] in SERVICES}


@pytest.fixture(scope="module")
def all_at_once(ward: Ward, pids: dict[str, int]) -> None:
    """Begins the Tasks of the table."""
    ward.apply_agent(OPENAI, wait=False)
    ward.apply_agent(ANTHROPIC, wait=False, provider=ANTHROPIC)
    tasks = []
    for row, wire, answers, _ in (case.values for case in ALL_AT_ONCE):
        name = f"{row}-{wire}"
        ward.llm.plan(name, answers)
        tasks.append(manifests.task(name, name, wire))
    ward.kubectl.apply(*tasks)


@pytest.mark.usefixtures("all_at_once")
@pytest.mark.parametrize(("row", "wire", "answers", "output"), ALL_AT_ONCE)
def test_what_a_provider_does_wrong(
    ward: Ward, row: str, wire: str, answers: Sequence[Answer], output: str | None
) -> None:
    name = f"{row}-{wire}"
    status = ward.finish(name, "Failed" if output is FAILED else "FinalAnswer")["status"]
    assert_told(row, ward.witness, name)
    assert [message["role"] for message in status["contextWindow"][:2]] == ["system", "user"]
    assert status["contextWindow"][1]["content"] == name
    assert len(ward.llm.asked(name)) == len(answers)
    assert status.get("output") == output
    if output is FAILED:
        assert (status["phase"], status["status"]) == ("Failed", "Error")
        assert status["statusDetail"] == f"LLM request failed: {status['error']}"
    elif output == "done":
        assert status["statusDetail"] == "LLM final response received"
    assert not any(ward.workspace.key in text for text in ward.witness.told(name))


@pytest.mark.usefixtures("all_at_once")
@pytest.mark.parametrize(
    ("task", "seconds"), [("llm-429-openai", 2), ("llm-429-anthropic", 2), ("llm-429-date-openai", 1.9)]
)
def test_a_provider_is_left_alone_for_as_long_as_it_asks(ward: Ward, task: str, seconds: float) -> None:
    first, second = ward.wait_asked(task, 2)
    assert seconds <= second.at - first.at < seconds + SECONDS


@pytest.mark.usefixtures("all_at_once")
def test_calls_without_an_id_of_their_own_are_told_apart(ward: Ward) -> None:
    task = ward.finish("llm-call-ids-openai")
    ids = [call["id"] for call in task["status"]["contextWindow"][2]["toolCalls"]]
    assert len(set(ids)) == len(tool_messages(task)) == 3
    results = [
        m["tool_call_id"] for m in ward.llm.asked("llm-call-ids-openai")[1].body["messages"] if m["role"] == "tool"
    ]
    assert results == ids


@pytest.mark.usefixtures("all_at_once")
def test_two_hundred_calls_at_once_are_made_and_answered_in_order(ward: Ward) -> None:
    ward.finish("llm-many-calls-openai")
    assert len(ward.workspace.calls_of("llm-many-calls-openai")) == 200
    said = [m for m in ward.llm.asked("llm-many-calls-openai")[1].body["messages"] if m["role"] == "tool"]
    assert [message["tool_call_id"] for message in said] == [f"call_{n}" for n in range(200)]


@pytest.mark.usefixtures("all_at_once")
def test_a_made_up_name_goes_back_in_a_form_that_providers_take(ward: Ward) -> None:
    ward.finish("llm-long-tool-name-openai")
    _, second = ward.llm.asked("llm-long-tool-name-openai")
    (call,) = second.body["messages"][2]["tool_calls"]
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call["function"]["name"])


# --- what is not in an answer ---


@pytest.mark.failure("llm-silence")
def test_silence_ends_with_the_time_limit_of_the_llm(ward: Ward) -> None:
    ward.apply_agent("silence", requestTimeoutSeconds=1)
    ward.begin("silence", Answer(how="silence"), DONE)
    ward.finish("silence")
    assert_told("llm-silence", ward.witness, "silence")
    first, second = ward.wait_asked("silence", 2)
    assert second.at - first.at >= 2  # the limit and the back-off


@pytest.mark.failure("llm-silence-deadline")
def test_silence_does_not_outlast_the_deadline_of_the_task(ward: Ward) -> None:
    ward.apply_agent("late")
    ward.begin("late", Answer(how="silence"), activeDeadlineSeconds=1)
    ward.finish("late", "Failed")
    assert_told("llm-silence-deadline", ward.witness, "late")


@pytest.mark.failure("llm-unreachable")
def test_a_provider_that_is_down_is_asked_until_it_is_back(ward: Ward, servers: BackgroundLoop) -> None:
    down = servers.enter(FaultyLLM())
    ward.apply_agent("down", url=down.url)
    servers.run(down.close())
    ward.begin("down")
    ward.wait_told("LLM request failed (attempt 1)", "down")
    servers.run(down.open())
    assert ward.finish("down")["status"]["output"] == "done"
    assert_told("llm-unreachable", ward.witness, "down")


@pytest.mark.failure("llm-unknown-host")
def test_a_host_that_does_not_exist_is_told_at_the_llm_and_heals(ward: Ward) -> None:
    ward.apply_agent("lost", wait=False, url="http://no-such-host.invalid/v1")
    ward.begin("lost", DONE)
    assert_told("llm-unknown-host", ward.witness, "lost")
    ward.kubectl.apply(ward.build_llm("lost"))
    assert ward.finish("lost")["status"]["output"] == "done"


@pytest.mark.failure("llm-slow")
def test_a_slow_provider_holds_up_nobody_else(ward: Ward) -> None:
    ward.apply_agent("slow")
    ward.apply_agent("quick")
    seen = threading.Event()
    ward.begin("slow", replace(DONE, until=seen))
    ward.wait_asked("slow")
    ward.begin("quick", DONE)
    ward.finish("quick")
    assert ward.finish("slow", "SendContextWindowToLLM")["status"]["turn"] == 1
    seen.set()
    assert ward.finish("slow")["status"]["output"] == "done"
    assert_told("llm-slow", ward.witness, "slow")


# --- objects that change ---


@pytest.mark.failure("secret-missing")
def test_a_missing_secret_is_told_and_waited_for(ward: Ward) -> None:
    ward.kubectl.apply(ward.build_llm("keyless"), ward.build_agent("keyless"))
    ward.begin("keyless", DONE)
    assert_told("secret-missing", ward.witness, "keyless")
    ward.kubectl.apply(ward.secret("keyless"))
    assert ward.finish("keyless")["status"]["output"] == "done"


@contextmanager
def failing_once(ward: Ward, name: str) -> Iterator[None]:
    """A Task whose first request fails after what is done inside; its second comes two seconds later."""
    ward.apply_agent(name)
    changed = threading.Event()
    busy = refuse(503, "The engine is overloaded.", {"Retry-After": "2"})
    ward.begin(name, replace(busy, until=changed), DONE)
    ward.wait_asked(name)
    yield
    changed.set()


@pytest.mark.failure("secret-removed")
def test_a_secret_that_goes_in_mid_run_is_waited_for(ward: Ward) -> None:
    with failing_once(ward, "bereft"):
        ward.kubectl("delete", "secret", "bereft")
    ward.wait_told("Waiting for the LLM", "bereft")
    new = ward.workspace.new_secret("sk-new")
    ward.kubectl.apply(ward.secret("bereft", new))
    assert ward.finish("bereft")["status"]["output"] == "done"
    assert_told("secret-removed", ward.witness, "bereft")
    assert [asked.key for asked in ward.llm.asked("bereft")] == [ward.workspace.key, new]


@pytest.mark.failure("key-rotated")
def test_a_rotated_key_counts_from_the_next_request_on(ward: Ward) -> None:
    new = ward.workspace.new_secret("sk-new")
    with failing_once(ward, "rotated"):
        ward.kubectl.apply(ward.secret("rotated", new))
    assert ward.finish("rotated")["status"]["output"] == "done"
    assert_told("key-rotated", ward.witness, "rotated")
    assert [asked.key for asked in ward.llm.asked("rotated")] == [ward.workspace.key, new]


@pytest.mark.failure("llm-deleted")
def test_an_llm_that_goes_in_mid_run_is_waited_for(ward: Ward) -> None:
    with failing_once(ward, "deleted"):
        ward.kubectl("delete", "llm", "deleted")
    ward.wait_told("to become ready", "deleted")
    ward.kubectl.apply(ward.build_llm("deleted"))
    assert ward.finish("deleted")["status"]["output"] == "done"
    assert_told("llm-deleted", ward.witness, "deleted")


@pytest.mark.failure("llm-edited")
def test_an_edited_llm_counts_from_the_next_request_on(ward: Ward) -> None:
    parameters = {"model": "gpt-5", "baseUrl": ward.llm.url}
    with failing_once(ward, "edited"):
        ward.kubectl.apply(ward.build_llm("edited", parameters=parameters))
    assert ward.finish("edited")["status"]["output"] == "done"
    assert_told("llm-edited", ward.witness, "edited")
    assert [asked.body["model"] for asked in ward.llm.asked("edited")] == ["gpt-4o", "gpt-5"]


def test_no_service_died_of_any_of_it(cluster: Cluster, pids: dict[str, int]) -> None:
    assert read_pids(cluster) == pids
