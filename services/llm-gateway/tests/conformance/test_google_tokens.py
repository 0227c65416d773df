"""Tokens of a service account: fetched with a real signature, kept, and replaced in time."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp.test_utils import unused_port
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from wire_hosts import HOST_OF, TOKEN, Bench, OpenBench, service_account

from kubechain_cli.scripted_llm import Reply
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_llm_gateway.providers.errors import (
    KeyRefusedError,
    ProviderError,
    TransientProviderError,
    UnreachableProviderError,
)
from kubechain_llm_gateway.providers.google_tokens import ServiceAccountTokens
from kubechain_llm_gateway.providers.transport import HTTPPool
from kubechain_llm_gateway.providers.wire_target import Target

pytestmark = pytest.mark.integration

HI = [Message(role="user", content="hi")]


@dataclass
class Clock:
    """google-auth's clock."""

    ahead: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return datetime.now(UTC).replace(tzinfo=None) + self.ahead


@pytest.fixture
async def bench(open_bench: OpenBench) -> Bench:
    return await open_bench(HOST_OF[Target.VERTEX_GEMINI])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moving = Clock()
    monkeypatch.setattr("google.auth._helpers.utcnow", moving)
    return moving


@pytest.fixture(autouse=True)
def _without_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    """google-auth asks three times; what it waits between them is not ours to test."""
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)


def count_tokens(bench: Bench) -> int:
    return [path for _, path in bench.requests].count("token")


async def test_one_token_serves_many_calls(bench: Bench) -> None:
    bench.answer(*[Reply("hello")] * 20)
    await asyncio.gather(*(bench.complete(HI) for _ in range(20)))
    assert count_tokens(bench) == 1


async def test_a_token_is_replaced_before_it_expires(bench: Bench, clock: Clock) -> None:
    bench.answer(*[Reply("hello")] * 3)
    await bench.complete(HI)
    clock.ahead = timedelta(minutes=50)
    await bench.complete(HI)
    assert count_tokens(bench) == 1
    clock.ahead = timedelta(minutes=58)
    await bench.complete(HI)
    assert count_tokens(bench) == 2


@pytest.mark.parametrize("status", [500, 503])
async def test_an_old_token_serves_while_there_is_no_new_one(bench: Bench, clock: Clock, status: int) -> None:
    bench.answer(Reply("hello"), Reply("hello"))
    await bench.complete(HI)
    clock.ahead = timedelta(minutes=58)
    bench.token_failure = (status, {"error": "internal_failure"})
    assert (await bench.complete(HI)).message.content == "hello"


@pytest.mark.parametrize(
    ("status", "body", "kind", "sentence"),
    [
        (
            400,
            {"error": "invalid_grant", "error_description": "Invalid grant: account not found"},
            KeyRefusedError,
            "invalid_grant: Invalid grant: account not found",
        ),
        (401, {"error": "disabled_client"}, KeyRefusedError, "disabled_client"),
        (503, {"error": "internal_failure"}, TransientProviderError, "internal_failure"),
    ],
)
async def test_what_google_says_of_an_account_is_told(
    bench: Bench, status: int, body: dict[str, str], kind: type[ProviderError], sentence: str
) -> None:
    bench.token_failure = (status, body)
    for ask in (bench.provider.validate, lambda: bench.complete(HI)):
        with pytest.raises(ProviderError) as raised:
            await ask()
        assert type(raised.value) is kind
        assert raised.value.message == sentence
        assert "PRIVATE KEY" not in repr(raised.getrepr())


def encrypted_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    secret = serialization.BestAvailableEncryption(b"secret")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret).decode()


@pytest.mark.parametrize(
    "key",
    ["", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", encrypted_key()],
    ids=["none", "text", "broken", "encrypted"],
)
async def test_a_key_that_can_not_sign_is_refused(key: str) -> None:
    pool = HTTPPool()
    account = json.dumps({**json.loads(service_account()), "private_key": key})
    with pytest.raises(KeyRefusedError, match="private_key of the service account cannot be read"):
        await ServiceAccountTokens(account, pool).token()
    await pool.aclose()


async def test_a_token_endpoint_that_is_away_is_unreachable() -> None:
    pool = HTTPPool()
    uri = f"http://127.0.0.1:{unused_port()}/token"
    account = json.dumps({**json.loads(service_account()), "token_uri": uri})
    with pytest.raises(UnreachableProviderError, match="cannot reach Google's token endpoint: Connection refused"):
        await ServiceAccountTokens(account, pool).token()
    await pool.aclose()


async def test_the_loop_goes_on_while_a_token_is_fetched(bench: Bench) -> None:
    """Signing and waiting happen in a thread: this loop serves the token endpoint, or it would wait for ever."""
    async with asyncio.timeout(10):
        bench.answer(Reply("hello"))
        await bench.complete(HI)


async def test_a_token_is_kept_out_of_what_the_provider_says(bench: Bench) -> None:
    bench.answer(Reply(status=400, error=f"who is {TOKEN}?"))
    with pytest.raises(ProviderError, match=r"^who is \*\*\*\?$"):
        await bench.complete(HI)
