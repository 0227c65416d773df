"""The inbox page and its API, as routes of the bridge's server.

The page is a few static files; everything it shows comes from the API under the user's own rights. No state is kept
but what can be had again: the calls are the informer's, and a session is in its cookie.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from importlib.resources import files

from aiohttp import web

from kubechain_common.kube.client import KubeClient
from kubechain_common.kube.errors import ForbiddenError, InvalidError, KubeError
from kubechain_common.telemetry.logging import get_logger
from kubechain_human_bridge.answers.answers import Answers
from kubechain_human_bridge.web.inbox.api import AuditLog, InboxAPI
from kubechain_human_bridge.web.inbox.board import Board, Calls
from kubechain_human_bridge.web.inbox.responses import SECURITY_HEADERS, Refusal, refusal_response
from kubechain_human_bridge.web.inbox.rights import Rights
from kubechain_human_bridge.web.inbox.sessions import Sessions
from kubechain_human_bridge.web.inbox.sign_in import SignIn
from kubechain_human_bridge.web.inbox.users import TokenReviews

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_REQUEST = "/api/v1/requests/{namespace}/{name}"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = get_logger(__name__)


class InboxPage:
    """``signing_key`` gives the key that all replicas share, empty while there is none; see ``Sessions``.

    ``public_url`` tells whether people come by https.
    """

    def __init__(
        self,
        kube: KubeClient,
        *,
        calls: Calls,
        answers: Answers,
        audit: AuditLog,
        signing_key: Callable[[], bytes],
        public_url: str,
    ) -> None:
        self._sign_in = SignIn(TokenReviews(kube), Sessions(signing_key), public_url)
        self._api = InboxAPI(
            kube, sign_in=self._sign_in, rights=Rights(kube), board=Board(calls), answers=answers, audit=audit
        )

    def routes(self) -> list[web.RouteDef]:
        sign_in, api = self._sign_in, self._api
        shown = [web.get(path, _serve(kind, content)) for path, kind, content in _read_files()]
        served: list[tuple[str, str, Handler]] = [
            ("GET", "/api/v1/session", sign_in.handle_show),
            ("POST", "/api/v1/session", sign_in.handle_sign_in),
            ("DELETE", "/api/v1/session", sign_in.handle_sign_out),
            ("GET", "/api/v1/requests", api.handle_list),
            ("GET", _REQUEST, api.handle_show),
            ("POST", f"{_REQUEST}/decision", api.handle_decision),
            ("POST", f"{_REQUEST}/response", api.handle_response),
            ("GET", "/api/v1/history", api.handle_history),
            ("GET", "/api/v1/events", api.handle_events),
        ]
        return shown + [web.route(method, path, _guard(handler)) for method, path, handler in served]


def _read_files() -> Iterator[tuple[str, str, bytes]]:
    """Path, type and content of each file of the page."""
    for folder in ("", "js/"):
        for file in (files(__package__) / "static" / folder).iterdir():
            if file.is_file():
                path = "/" if file.name == "inbox.html" else f"/{folder}{file.name}"
                yield path, _TYPES[file.name.rpartition(".")[2]], file.read_bytes()


def _serve(kind: str, content: bytes) -> Handler:
    async def serve(_: web.Request) -> web.StreamResponse:
        headers = {**SECURITY_HEADERS, "Cache-Control": "no-cache"}
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=headers)

    return serve


def _guard(handler: Handler) -> Handler:
    """The handler with its refusals, and the API server's trouble, told in JSON."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refusal_response(refusal)
        except InvalidError:  # a namespace or name that no object can have
            return refusal_response(Refusal(404, "There is no such request."))
        except ForbiddenError as error:  # us, not the user: their rights are reviewed
            _log.error("the service lacks a right", path=request.path, error=str(error))
            return refusal_response(Refusal(500, "KubeChain itself lacks a right that this takes. Its log says which."))
        except KubeError as error:
            _log.warning("request failed", path=request.path, error=str(error))
            return refusal_response(Refusal(503, "The API server does not answer right now. Try again in a moment."))

    return guarded
