"""The table of parameters is what is on the wire, and what it calls unknown is never sent."""

from __future__ import annotations

from typing import Any

import pytest
from wire_hosts import HOST_OF, HOSTS, Bench, Host, OpenBench

from kubechain_cli.scripted_llm import Reply
from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_llm_gateway.llms.decision import check_configuration
from kubechain_llm_gateway.llms.parameter_support import PARAMETERS, SUPPORT, Sent
from kubechain_llm_gateway.protocols.anthropic_mapping import DEFAULT_MAX_TOKENS
from kubechain_llm_gateway.providers.wire_target import Target

pytestmark = pytest.mark.integration

HI = [Message(role="user", content="hi")]
VALUES: dict[str, Any] = {
    "temperature": "0.25",
    "maxTokens": 99,
    "topP": "0.5",
    "topK": 7,
    "frequencyPenalty": "-1.5",
    "presencePenalty": "2",
}
BASE = {"model", "messages", "system", "anthropic_version", "random_seed", "stream", "stream_options"}


def judge(host: Host, **parameters: Any) -> str | None:
    return check_configuration(LLM(spec=host.build_spec(**parameters)))


def test_every_target_is_in_the_table_and_on_the_bench() -> None:
    assert set(SUPPORT) == set(Target) == {host.target for host in HOSTS}
    assert all(tuple(row) == PARAMETERS for row in SUPPORT.values())


@pytest.mark.parametrize("name", PARAMETERS)
async def test_a_parameter_is_sent_or_refused(host: Host, open_bench: OpenBench, name: str) -> None:
    support = SUPPORT[host.target][name]
    problem = judge(host, **{name: VALUES[name]})
    if not isinstance(support, Sent):
        assert problem == f"parameters.{name} is not known to {host.target}: remove it"
        return
    assert problem is None
    bench = await open_bench(host, **{name: VALUES[name]})
    assert await _send(bench) == {support.field: float(VALUES[name])}


async def test_all_that_a_provider_takes_may_be_sent_together(host: Host, open_bench: OpenBench) -> None:
    taken = {name: VALUES[name] for name, support in SUPPORT[host.target].items() if isinstance(support, Sent)}
    if host.target == Target.ANTHROPIC:
        del taken["topP"]  # this model takes one of the two
    assert judge(host, **taken) is None
    assert len(await _send(await open_bench(host, **taken))) == len(taken)


async def test_nothing_is_sent_that_is_not_set(bench: Bench) -> None:
    assert await _send(bench) == {}


async def _send(bench: Bench) -> dict[str, float]:
    """What a call sends beside the conversation; the limit that Anthropic's protocol requires is not counted."""
    bench.answer(Reply("hello"))
    await bench.complete(HI)
    sent = {name: value for name, value in bench.bodies[-1].items() if name not in BASE}
    return {name: value for name, value in sent.items() if (name, value) != ("max_tokens", DEFAULT_MAX_TOKENS)}


@pytest.mark.parametrize(
    ("target", "temperature", "sentence"),
    [
        (Target.ANTHROPIC, "1.1", "parameters.temperature of Anthropic goes from 0 to 1"),
        (Target.VERTEX_CLAUDE, "2", "parameters.temperature of Claude on Vertex AI goes from 0 to 1"),
        (Target.MISTRAL, "1.6", "parameters.temperature of Mistral goes from 0 to 1.5"),
        (Target.MISTRAL, "1.5", None),
        (Target.OPENAI, "2", None),
        (Target.VERTEX_GEMINI, "2", None),
    ],
)
def test_a_bound_of_the_provider_is_told(target: Target, temperature: str, sentence: str | None) -> None:
    assert judge(HOST_OF[target], temperature=temperature) == sentence


@pytest.mark.parametrize(
    ("target", "parameters", "sentence"),
    [
        (
            Target.OPENAI,
            {"model": "o3", "temperature": "0.5"},
            "model o3 does not take parameters.temperature: remove it",
        ),
        (Target.OPENAI, {"model": "o3", "temperature": "1", "presencePenalty": "0"}, None),
        (Target.OPENAI, {"model": "gpt-5-mini", "topP": "0.1"}, "model gpt-5-mini does not take parameters.topP"),
        (Target.OPENAI, {"model": "o4-mini-2025-04-16", "frequencyPenalty": "1"}, "parameters.frequencyPenalty"),
        (Target.OPENAI, {"model": "gpt-5-chat-latest", "temperature": "0.5"}, None),
        (Target.OPENAI, {"model": "gpt-5.1", "temperature": "0.5"}, None),
        (Target.COMPATIBLE, {"model": "o3", "temperature": "0.5"}, None),
        (Target.AZURE, {"model": "o3", "temperature": "0.5"}, None),
        (
            Target.ANTHROPIC,
            {"model": "claude-opus-4-7", "temperature": "0.5", "topK": 3},
            "model claude-opus-4-7 does not take parameters.temperature and parameters.topK: remove it",
        ),
        (Target.VERTEX_CLAUDE, {"model": "claude-sonnet-5@20260901", "topK": 3}, "does not take parameters.topK"),
        (
            Target.ANTHROPIC,
            {"model": "claude-sonnet-4-5-20250929", "temperature": "0.5", "topP": "0.5"},
            "takes only one of parameters.temperature and parameters.topP: remove one of them",
        ),
        (Target.ANTHROPIC, {"model": "claude-opus-4-1", "temperature": "0.5", "topP": "0.5"}, "takes only one of"),
        (Target.ANTHROPIC, {"model": "claude-sonnet-4-20250514", "temperature": "0.5", "topP": "0.5"}, None),
        (Target.ANTHROPIC, {"model": "claude-3-5-sonnet-latest", "temperature": "0.5", "topP": "0.5", "topK": 3}, None),
        (Target.ANTHROPIC, {"model": "somebody-elses", "temperature": "0.5", "topP": "0.5"}, None),
    ],
)
def test_what_a_model_is_known_to_refuse_is_told(
    target: Target, parameters: dict[str, Any], sentence: str | None
) -> None:
    problem = judge(HOST_OF[target], **parameters)
    assert problem is None if sentence is None else sentence in (problem or "")
