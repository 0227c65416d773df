"""What goes wrong between us and a provider is the same error, whoever the provider is."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port
from wire_hosts import HOST_OF, TOKEN, Bench, Host, OpenBench, key_of

from kubechain_cli.scripted_llm import Reply
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_llm_gateway.providers.errors import (
    BrokenReplyError,
    KeyRefusedError,
    ProviderError,
    RejectedRequestError,
    TransientProviderError,
    UnreachableProviderError,
    UnusableReplyError,
)
from kubechain_llm_gateway.providers.wire_target import Target

pytestmark = pytest.mark.integration

HI = [Message(role="user", content="hi")]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RejectedRequestError),
        (401, KeyRefusedError),
        (403, KeyRefusedError),
        (404, RejectedRequestError),
        (413, RejectedRequestError),
        (429, TransientProviderError),
        (500, TransientProviderError),
        (503, TransientProviderError),
        (529, TransientProviderError),
    ],
)
async def test_a_status_is_one_of_our_errors(bench: Bench, status: int, kind: type[ProviderError]) -> None:
    secret = TOKEN if bench.host.is_google_cloud else key_of(bench.host)
    bench.answer(Reply(status=status, error=f"No, {secret} will not do.", headers={"Retry-After": "7"}))
    with pytest.raises(ProviderError) as raised:
        await bench.complete(HI)
    error = raised.value
    assert type(error) is kind
    assert (error.message, error.status_code, error.retry_after) == ("No, *** will not do.", status, 7.0)
    assert [path for _, path in bench.requests].count(bench.host.streams) == 1
    assert secret not in repr(raised.getrepr())


@pytest.mark.parametrize("text", ["", "<html>hello</html>", '{"id": ', "[]", "null", '{"id": "x"}'])
async def test_what_is_no_reply_is_a_broken_one(bench: Bench, text: str) -> None:
    bench.answer(web.Response(text=text, content_type="application/json"))
    with pytest.raises(BrokenReplyError) as raised:
        await bench.complete(HI)
    assert raised.value.retryable


async def test_an_empty_choice_is_unusable(bench: Bench) -> None:
    bench.answer(Reply(""))
    with pytest.raises(UnusableReplyError, match="neither text nor tool calls") as raised:
        await bench.complete(HI)
    assert not raised.value.retryable


async def test_a_dropped_connection_is_unreachable(bench: Bench) -> None:
    bench.answer(None)
    with pytest.raises(UnreachableProviderError, match=f"lost the connection to http://{bench.host.host}: "):
        await bench.complete(HI)


async def test_a_refused_connection_is_unreachable(host: Host, open_bench: OpenBench) -> None:
    closed = f"http://127.0.0.1:{unused_port()}"
    bench = await open_bench(host, baseUrl=closed)
    with pytest.raises(UnreachableProviderError, match=f"^cannot reach {closed}: Connection refused$") as raised:
        await bench.complete(HI)
    assert raised.value.retryable


async def test_a_key_is_checked_without_a_completion(bench: Bench) -> None:
    assert (await bench.provider.validate()).detail == bench.host.validated
    assert [request for request in bench.requests if request[1] != "token"] == [bench.host.key_check]


@pytest.mark.parametrize(
    ("status", "kind"), [(401, KeyRefusedError), (403, KeyRefusedError), (429, TransientProviderError)]
)
async def test_a_key_that_is_refused(bench: Bench, status: int, kind: type[ProviderError]) -> None:
    bench.answer(Reply(status=status, error="Bad key."))
    with pytest.raises(kind, match=r"^Bad key\.$"):
        await bench.provider.validate()


async def test_a_proxy_that_can_not_check_a_key_counts_as_reachable(bench: Bench) -> None:
    bench.answer(Reply(status=404, error="Not Found"))
    detail = (await bench.provider.validate()).detail
    assert "could not be checked" in detail or bench.host.is_google_cloud


async def test_google_answers_400_to_a_key_that_it_does_not_know(open_bench: OpenBench) -> None:
    bench = await open_bench(HOST_OF[Target.GOOGLE])
    problem = {
        "code": 400,
        "message": "API key not valid. Please pass a valid API key.",
        "status": "INVALID_ARGUMENT",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
    }
    bench.answer(web.json_response([{"error": problem}], status=400))
    with pytest.raises(KeyRefusedError, match=r"^API key not valid\. Please pass a valid API key\.$"):
        await bench.provider.validate()
