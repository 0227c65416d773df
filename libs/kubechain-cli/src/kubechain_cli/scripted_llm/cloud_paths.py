"""Where Azure and Google serve the two protocols: other paths, and Google's tokens and free counts around them."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

_PLACE = "/v1/projects/{project}/locations/{location}"
_CLAUDE = f"{_PLACE}/publishers/anthropic/models"
TOKEN = "token-of-the-scripted-stand-in"
"""What every service account gets."""


def add_cloud_paths(router: web.UrlDispatcher, chat: Handler, messages: Handler, models: Handler) -> None:
    """The handlers of the two protocols and of the model list, at the clouds' paths too."""
    router.add_get("/openai/models", models)
    router.add_post("/openai/deployments/{deployment}/chat/completions", chat)
    router.add_get("/v1beta/openai/models", models)
    router.add_post("/v1beta/openai/chat/completions", chat)
    router.add_post("/token", _give_token)
    router.add_post(f"{_PLACE}/endpoints/openapi/chat/completions", chat)
    router.add_post(f"{_PLACE}/publishers/google/models/{{counted:[^/:]+}}:countTokens", _count)
    router.add_post(f"{_CLAUDE}/count-tokens:rawPredict", _count)
    for verb in ("rawPredict", "streamRawPredict"):
        router.add_post(f"{_CLAUDE}/{{model:[^/:]+}}:{verb}", messages)


async def _give_token(request: web.Request) -> web.Response:
    form = await request.post()
    if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" or not form.get("assertion"):
        return web.json_response({"error": "invalid_grant", "error_description": "no assertion"}, status=400)
    return web.json_response({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})


async def _count(request: web.Request) -> web.Response:
    return web.json_response({"totalTokens": 1, "input_tokens": 1})
