"""Signing in and out, and who sends a request.

A program sends its token with each request. A browser pastes it once and gets the session's cookie: HttpOnly,
SameSite=Strict, and with https Secure under a name that no other host can set. A request that changes something by
cookie also has to carry a header that no form, and no script of another origin, can send.
"""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, Field

from kubechain_common.runtime.clock import now
from kubechain_human_bridge.web.inbox.entries import format_moment
from kubechain_human_bridge.web.inbox.responses import Refusal, json_response, read_body
from kubechain_human_bridge.web.inbox.sessions import NoKeyError, Session, Sessions, SessionTooLargeError, build_session
from kubechain_human_bridge.web.inbox.users import TokenReviews, read_expiry

PAGE_HEADER = "X-KubeChain-Page"

_SAFE_METHODS = ("GET", "HEAD")
_BAD_TOKEN = (
    "The API server does not take this token. It may have expired, or belong to another cluster:"
    " `kubectl create token <serviceaccount>` makes a new one."
)


class _SignIn(BaseModel):
    token: Annotated[str, Field(max_length=16_384)]


class SignIn:
    """``identify`` is for everybody's requests, the handlers for ``/api/v1/session``."""

    def __init__(self, reviews: TokenReviews, sessions: Sessions, public_url: str) -> None:
        self._reviews = reviews
        self._sessions = sessions
        self._secure = public_url.startswith("https://")
        self._cookie = "__Host-kubechain-session" if self._secure else "kubechain-session"

    async def identify(self, request: web.Request) -> Session:
        """The session of whoever sends the request. Raises Refusal, KubeError."""
        header = request.headers.get("Authorization")
        if header is not None:
            return await self._identify_bearer(header)
        session = self._sessions.open(request.cookies.get(self._cookie, ""), now())
        if session is None:
            raise Refusal(401, "Sign in with a Kubernetes token first.")
        check_origin(request)
        return session

    async def _identify_bearer(self, header: str) -> Session:
        scheme, _, token = header.partition(" ")
        user = await self._reviews.identify(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise Refusal(401, _BAD_TOKEN)
        session = build_session(user, read_expiry(token), now())
        return Session(session.user, session.expires_at, bearer=True)

    # --- /api/v1/session ---

    async def handle_show(self, request: web.Request) -> web.Response:
        return json_response(_show(await self.identify(request)))

    async def handle_sign_in(self, request: web.Request) -> web.Response:
        check_origin(request)
        token = (await read_body(request, _SignIn)).token.strip()
        user = await self._reviews.identify(token)
        if user is None:
            raise Refusal(401, _BAD_TOKEN)
        session = build_session(user, read_expiry(token), now())
        try:
            sealed = self._sessions.seal(session)
        except SessionTooLargeError:
            raise Refusal(
                400, "You are in too many groups for a browser session. Use kubectl or the kubechain command."
            ) from None
        except NoKeyError:
            raise Refusal(
                503, "Nobody can sign in yet: the signing key is being made. Try again in a moment."
            ) from None
        response = json_response(_show(session))
        response.set_cookie(
            self._cookie,
            sealed,
            max_age=max(0, int((session.expires_at - now()).total_seconds())),
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="Strict",
        )
        return response

    async def handle_sign_out(self, request: web.Request) -> web.Response:
        check_origin(request)
        response = json_response({})
        response.del_cookie(self._cookie, path="/", secure=self._secure, httponly=True, samesite="Strict")
        return response


def check_origin(request: web.Request) -> None:
    """Checks that a change comes from our own page. Raises Refusal."""
    if request.method not in _SAFE_METHODS and PAGE_HEADER not in request.headers:
        raise Refusal(403, f"A request that changes something needs the header {PAGE_HEADER}.")


def _show(session: Session) -> dict[str, object]:
    return {"user": session.user.name, "expiresAt": format_moment(session.expires_at)}
