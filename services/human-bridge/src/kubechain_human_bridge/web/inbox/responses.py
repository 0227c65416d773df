"""What goes over the wire: JSON that nobody keeps, refusals with a sentence, bodies that were checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from kubechain_human_bridge.web.bodies import receive

M = TypeVar("M", bound=BaseModel)

SECURITY_HEADERS: Mapping[str, str] = {
    # Nothing but our own files, no inline code, and no string that becomes markup or code.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Refusal(Exception):
    """Ends a request that is refused; ``sentence`` says why, and what to do."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def json_response(data: Any, status: int = 200) -> web.Response:
    headers = {**SECURITY_HEADERS, "Cache-Control": "no-store"}
    return web.Response(body=orjson.dumps(data), status=status, content_type="application/json", headers=headers)


def refusal_response(refusal: Refusal) -> web.Response:
    response = json_response({"error": refusal.sentence}, refusal.status)
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def read_body(request: web.Request, model: type[M]) -> M:
    """The body as the model. Raises Refusal."""
    try:
        return model.model_validate_json(await receive(request))
    except web.HTTPRequestEntityTooLarge:
        raise Refusal(413, "This is more than one answer can hold.") from None
    except web.HTTPRequestTimeout as error:
        raise Refusal(408, str(error.text)) from None
    except ValidationError as error:  # without what was sent: it may be a token
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        first = problems[0]
        where = ".".join(map(str, first["loc"]))
        raise Refusal(400, f"{where or 'The body'}: {first['msg']}.") from None
