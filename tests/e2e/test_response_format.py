"""An Agent whose answers have a format: what fits is the output, what does not is corrected once."""

from __future__ import annotations

from typing import Any

import pytest
from tests.e2e.support import manifests
from tests.e2e.support.failures import assert_told
from tests.e2e.support.scripts import calls, in_turns
from tests.e2e.support.witness import Witness
from tests.e2e.support.workspace import Workspace, reason_of

from kubechain_cli.scripted_llm import Reply, Script, ScriptedServer

pytestmark = pytest.mark.e2e

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def apply_formatted_agent(workspace: Workspace, script: Script, schema: Any = CITY) -> ScriptedServer:
    llm = workspace.serve_llm(script)
    workspace.apply_agent(llm)
    formatted = manifests.agent(responseFormat={"type": "JSONSchema", "name": "city", "jsonSchema": schema})
    workspace.kubectl.apply(formatted)
    return llm


def asked_for_format(body: Any) -> bool:
    """Whether the provider was told which JSON is wanted, and under which name."""
    told = body["response_format"]["json_schema"]
    return bool(told["name"] == "city" and told["schema"]["required"] == ["city"])


@pytest.mark.failure("format-corrected")
def test_a_model_corrects_its_answer(workspace: Workspace, witness: Witness) -> None:
    script = in_turns(
        calls(("nobody__nothing", {}), text="no JSON"), Reply('{"town": "Paris"}'), Reply('{"city": "Paris"}')
    )
    llm = apply_formatted_agent(workspace, script)
    task = workspace.run_task("corrected", "Which city?")
    assert task["status"]["output"] == '{"city": "Paris"}'
    roles = [m["role"] for m in task["status"]["contextWindow"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user", "assistant"]
    assert (task["status"]["turn"], len(llm.requests)) == (3, 3)
    assert [asked_for_format(request.body) for request in llm.requests] == [True] * 3
    said = task["status"]["contextWindow"][5]["content"]
    assert said.startswith('Your answer does not have the required format: "city" missing in the answer')
    reasons = [c["reason"] for c in task["status"]["conditions"]]
    assert sorted(reasons) == ["Corrected", "FinalAnswer"]
    assert_told("format-corrected", witness, "corrected")


@pytest.mark.failure("format-violated")
def test_a_model_that_does_not_correct_its_answer_fails_its_task(workspace: Workspace, witness: Witness) -> None:
    llm = apply_formatted_agent(workspace, in_turns(Reply("It is Paris.")))
    workspace.kubectl.apply(manifests.task("stubborn", "Which city?"))
    task = workspace.kubectl.finish("stubborn", "Failed")
    assert (reason_of(task), task["status"]["output"]) == ("ResponseFormatViolated", "It is Paris.")
    assert len(llm.requests) == 2
    assert_told("format-violated", witness, "stubborn")


@pytest.mark.failure("format-schema")
def test_an_agent_whose_schema_can_not_be_used_is_not_ready(workspace: Workspace, witness: Witness) -> None:
    pattern = {"type": "string", "pattern": "(a+)+$"}
    apply_formatted_agent(workspace, in_turns(Reply('"Paris"')), pattern)
    workspace.kubectl.wait("agent/my-assistant", "jsonpath={.status.status}=Error")
    assert_told("format-schema", witness, "my-assistant")
    workspace.kubectl.apply(manifests.task("waits", "Which city?"))
    workspace.kubectl.wait("task/waits", "jsonpath={.status.phase}=Pending")
    healed = {"type": "JSONSchema", "jsonSchema": {"type": "string"}}
    workspace.kubectl.apply(manifests.agent(responseFormat=healed))
    assert workspace.kubectl.finish("waits")["status"]["output"] == '"Paris"'
