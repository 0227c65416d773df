"""Where a provider is when nothing else is said, and the settings that are its alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from wire_hosts import HOST_OF, KEY, Host, OpenBench, key_of

from kubechain_cli.scripted_llm import Reply
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.llm import LLMSpec
from kubechain_llm_gateway.providers.registry import ProviderRegistry
from kubechain_llm_gateway.providers.wire_target import Target

pytestmark = pytest.mark.integration

HI = [Message(role="user", content="hi")]


async def address_of(host: Host, **spec: Any) -> str:
    """Where calls of the host's LLM go when no ``baseUrl`` is given."""
    registry = ProviderRegistry()
    parameters = host.spec["parameters"]
    provider: Any = await registry.build(
        LLMSpec.model_validate({**host.spec, "parameters": parameters, **spec}), key_of(host)
    )
    await registry.aclose()
    return str(provider._caller._client.base_url).rstrip("/")


@pytest.mark.parametrize("target", [t for t in Target if t not in (Target.COMPATIBLE, Target.AZURE)])
async def test_a_provider_is_reached_by_tls_at_its_own_address(target: Target) -> None:
    host = HOST_OF[target]
    assert await address_of(host) == host.base_url.replace("http://", "https://").rstrip("/")


@pytest.mark.parametrize("target", [Target.VERTEX_GEMINI, Target.VERTEX_CLAUDE])
@pytest.mark.parametrize(
    ("location", "address"),
    [
        ("europe-west4", "https://europe-west4-aiplatform.googleapis.com/v1"),
        ("global", "https://aiplatform.googleapis.com/v1"),
        ("us", "https://aiplatform.us.rep.googleapis.com/v1"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com/v1"),
    ],
)
async def test_a_location_of_vertex_has_an_address(target: Target, location: str, address: str) -> None:
    vertex = {"cloudProject": "p", "cloudLocation": location}
    assert await address_of(HOST_OF[target], vertex=vertex) == address


async def test_azure_takes_a_token_of_entra_id(open_bench: OpenBench) -> None:
    azure = HOST_OF[Target.AZURE]
    spec = {**azure.spec, "openai": {"apiType": "AZURE_AD"}}
    bench = await open_bench(replace(azure, spec=spec, headers={"authorization": f"Bearer {KEY}"}))
    bench.answer(Reply("hello"))
    assert (await bench.complete(HI)).message.content == "hello"
    assert (await bench.provider.validate()).detail == azure.validated


@pytest.mark.parametrize(
    ("version", "field", "options"),
    [("2024-06-01", "max_tokens", False), ("2025-01-01-preview", "max_completion_tokens", True)],
)
async def test_azure_is_asked_as_its_api_version_knows(
    open_bench: OpenBench, version: str, field: str, options: bool
) -> None:
    azure = HOST_OF[Target.AZURE]
    spec = {**azure.spec, "openai": {"apiType": "AZURE", "apiVersion": version}}
    bench = await open_bench(replace(azure, spec=spec, query={"api-version": version}), maxTokens=9)
    bench.answer(Reply("hello"))
    await bench.complete(HI)
    assert bench.bodies[-1][field] == 9
    assert ("stream_options" in bench.bodies[-1]) == options


@pytest.mark.parametrize("base_url", ["http://res.openai.azure.com", "http://res.openai.azure.com/openai/"])
async def test_the_endpoint_of_azure_may_be_written_with_its_path(open_bench: OpenBench, base_url: str) -> None:
    bench = await open_bench(HOST_OF[Target.AZURE], baseUrl=base_url)
    bench.answer(Reply("hello"))
    assert (await bench.complete(HI)).message.content == "hello"


@pytest.mark.parametrize(("config", "seed"), [({"randomSeed": 42}, 42), ({"randomSeed": 0}, 0), ({}, None)])
async def test_mistral_gets_its_seed(open_bench: OpenBench, config: dict[str, int], seed: int | None) -> None:
    mistral = HOST_OF[Target.MISTRAL]
    bench = await open_bench(replace(mistral, spec={**mistral.spec, "mistral": config}))
    bench.answer(Reply("hello"))
    await bench.complete(HI)
    assert bench.bodies[-1].get("random_seed") == seed


async def test_a_model_of_another_publisher_is_checked_by_its_token_alone(open_bench: OpenBench) -> None:
    model = "meta/llama-4-scout-17b-16e-instruct-maas"
    bench = await open_bench(HOST_OF[Target.VERTEX_GEMINI], model=model)
    assert (await bench.provider.validate()).detail == bench.host.validated
    assert bench.requests == [("POST", "token")]
    bench.answer(Reply("hello"))
    await bench.complete(HI)
    assert bench.bodies[-1]["model"] == model
