"""Arbitrary LLMs, requests and replies: a request always ends in a result, a retry or an error of its Task."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.secret_values import SecretProblem
from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_common.kube.errors import NotFoundError
from kubechain_common.kube.text_cache import TextCache
from kubechain_common.kube.window_reader import WindowReader
from kubechain_common.messages import LLMRequest, LLMResult
from kubechain_common.messages.topology import llm_request_subject, llm_result_subject
from kubechain_common.messaging import codec
from kubechain_common.messaging.delivery import Delivery, Poison
from kubechain_common.messaging.errors import PoisonMessage, RetryLater
from kubechain_common.runtime.clock import epoch
from kubechain_common.testing.arbitrary import JSON, NAMES, fuzz, models, resources
from kubechain_common.testing.entries import InMemoryEntries
from kubechain_llm_gateway.admission.admission import Admission
from kubechain_llm_gateway.admission.fallback_calls import FallbackCalls
from kubechain_llm_gateway.admission.health_board import HealthBoard
from kubechain_llm_gateway.admission.metering import Meter
from kubechain_llm_gateway.admission.rate_limiter import RateLimiter
from kubechain_llm_gateway.calls.request_worker import RequestWorker
from kubechain_llm_gateway.calls.results import build_poison_result
from kubechain_llm_gateway.llms.access import LLMAccess
from kubechain_llm_gateway.llms.credentials import Credentials, resolve_credentials
from kubechain_llm_gateway.llms.decision import check_configuration, explain
from kubechain_llm_gateway.protocols import anthropic_mapping, openai_mapping, wire_json
from kubechain_llm_gateway.protocols.dialect import Dialect
from kubechain_llm_gateway.providers.base import Completion
from kubechain_llm_gateway.providers.errors import ProviderError, TransientProviderError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REF = st.fixed_dictionaries({"namespace": st.just("default"), "name": NAMES, "uid": st.just("uid-1")})
SUBJECT = llm_request_subject("uid-1", "default", "uid-1", 1, "0")
RESULT = llm_result_subject("default", "uid-1", 1, "0")

llms = resources(LLM, {"name": NAMES})
requests = models(LLMRequest, {"v": st.just(1), "task": REF, "llm": REF, "turn": st.just(1)})
DIALECTS = st.sampled_from(
    [Dialect("h", official=True), Dialect("h"), Dialect("h", mistral=True), Dialect("h", gemini=True)]
)


class World:
    """The bus, one LLM without a Secret, and a provider that goes through the mapping of its protocol."""

    def __init__(self, llm: LLM | None, reply: Any) -> None:
        self.llm = (
            llm.model_copy(update={"metadata": llm.metadata.model_copy(update={"uid": "uid-1"})}) if llm else None
        )
        self.reply = reply
        self.published: list[tuple[str, LLMResult]] = []
        self.stopping = asyncio.Event()
        self.stopping.set()  # an LLM that can not be used is not waited for
        access = LLMAccess(cast("Any", self), cast("Any", self), cast("Any", self))
        conversations = WindowReader(self, TextCache(0))
        meter = Meter(RateLimiter(InMemoryEntries(), epoch), lambda uid: self.llm, epoch, self.stopping)
        admission = Admission(HealthBoard(InMemoryEntries()), meter, lambda uid: self.llm, self.stopping)
        self.worker = RequestWorker(
            cast("Any", self),
            access,
            admission,
            FallbackCalls(cast("Any", self), admission),
            cast("Any", self),
            conversations,
            self.stopping,
        )

    async def request(self, method: str, path: str) -> dict[str, Any]:
        raise NotFoundError(path)  # whatever a window refers to

    def get(self, namespace: str, name: str) -> LLM | None:
        return self.llm

    async def read(self, namespace: str, name: str) -> dict[str, str]:
        key = self.llm.spec.api_key_from if self.llm else None
        return {key.secret_key_ref.key: "sk-1"} if key else {}

    async def build(self, spec: Any, api_key: str | None) -> World:
        return self

    async def is_wanted(self, request: LLMRequest) -> bool:
        return True

    async def complete(
        self, messages: Any, tools: Any, parameters: Any, on_delta: Any, response_format: Any
    ) -> Completion:
        dialect = Dialect("localhost", official=False)
        wire_json.encode(openai_mapping.build_request(messages, tools, parameters, dialect, response_format))
        return openai_mapping.parse_reply(self.reply, dialect)

    async def publish(self, subject: str, message: LLMResult, **_: Any) -> None:
        self.published.append((subject, codec.decode(LLMResult, codec.encode(message))))

    publish_until_stored = publish


@fuzz
@given(
    st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()) | requests.map(codec.encode),
    st.none() | llms,
    JSON | st.just({"choices": [{"message": {"content": "hi"}}]}),
)
async def test_every_request_ends_in_a_result_or_comes_again(data: bytes, llm: LLM | None, reply: Any) -> None:
    world = World(llm, reply)
    try:
        request = codec.decode(LLMRequest, data)
    except PoisonMessage as poison:
        result = build_poison_result(Poison(SUBJECT, data, poison.reason, 1, None))
        assert result is not None
        await world.publish(RESULT, result)
    else:
        try:
            await world.worker.handle_request(Delivery(request, 1, None, SUBJECT, NOW, 1, NOW))
        except RetryLater:
            return
    assert [(where, r.task.uid, r.turn) for where, r in world.published if "retry" not in where] == [
        (RESULT, "uid-1", 1)
    ]


@fuzz
@given(llms, st.none() | st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=2), st.text(max_size=8))
def test_every_llm_has_a_status(llm: LLM, secret: dict[str, str] | None, words: str) -> None:
    problem = check_configuration(llm) or explain(llm, TransientProviderError(words))
    llm.status.mark("Error", "ValidationFailed", problem, generation=llm.metadata.generation, now=NOW).to_wire()
    assert isinstance(resolve_credentials(llm, secret), Credentials | SecretProblem)


@pytest.mark.parametrize("build", [openai_mapping.build_request, anthropic_mapping.build_request])
@fuzz
@given(data=st.data())
def test_every_conversation_can_be_put_on_the_wire(build: Callable[..., Any], data: st.DataObject) -> None:
    request, llm = data.draw(requests), data.draw(llms)
    dialect = (data.draw(DIALECTS),) if build is openai_mapping.build_request else ()
    parameters = llm.spec.parameters or LLMParameters()
    more = {} if dialect else {"cached": data.draw(st.booleans()), "takes_schema": data.draw(st.booleans())}
    wire_json.encode(
        build(request.messages, request.tools, parameters, *dialect, response_format=request.response_format, **more)
    )


@fuzz
@given(JSON, DIALECTS)
def test_every_reply_is_an_answer_or_a_providers_error(reply: Any, dialect: Dialect) -> None:
    parses: list[Callable[[], Completion]] = [
        lambda: openai_mapping.parse_reply(reply, dialect),
        lambda: openai_mapping.parse_reply({"choices": [{"message": reply}], "usage": reply}, dialect),
        lambda: anthropic_mapping.parse_reply(reply),
        lambda: anthropic_mapping.parse_reply(
            {"content": [{"type": "tool_use", "id": "x", "name": reply, "input": reply}]}
        ),
        lambda: anthropic_mapping.parse_reply(
            {"content": [{"type": "text", "text": "hi"}], "usage": {"input_tokens": reply}}
        ),
    ]
    for parse in parses:
        with suppress(ProviderError):
            assert parse().message.model_dump_json()
