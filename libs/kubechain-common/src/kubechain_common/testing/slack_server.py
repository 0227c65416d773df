"""An HTTP server that speaks the part of Slack's Web API that we use, and clicks buttons as people in Slack do.

https://docs.slack.dev/apis/web-api; https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

BOT_TOKEN = "xoxb-test-token"
SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
MISSING_SCOPE = {"ok": False, "error": "missing_scope", "needed": "channels:history"}

_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Interaction:
    """A request as Slack makes it."""

    body: bytes
    headers: dict[str, str]


@dataclass
class SlackServer:
    """Serve ``build_app()``, and set ``origin`` to where it is served (``http://127.0.0.1:1234``).

    ``failures`` are answers to come, by method: a status with headers, or a body that says what is wrong.
    """

    origin: str = ""
    token: str = BOT_TOKEN
    signing_secret: str = SIGNING_SECRET
    calls: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    updates: list[dict[str, Any]] = field(default_factory=list)
    forms: list[dict[str, Any]] = field(default_factory=list)
    whispers: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, list[dict[str, Any] | tuple[int, dict[str, str]]]] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        """The address for ``slack.baseUrl``."""
        return f"{self.origin}/api"

    def build_app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/api/{method}", self._handle)
        app.router.add_post("/respond", self._handle_whisper)
        return app

    def fail(self, method: str, *answers: dict[str, Any] | tuple[int, dict[str, str]]) -> None:
        self.failures.setdefault(method, []).extend(answers)

    def sign(self, body: bytes, *, at: float | None = None, secret: str | None = None) -> dict[str, str]:
        """The headers of a request with this body."""
        stamp = str(int(time.time() if at is None else at))
        key = (secret or self.signing_secret).encode()
        digest = hmac.new(key, f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
        headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={digest}"}
        return {**headers, "Content-Type": _FORM}

    def build_click(self, message: dict[str, Any], action_id: str, user: str, name: str = "alice") -> Interaction:
        """``user`` uses the button of a message."""
        buttons = [b for block in message["blocks"] if block["type"] == "actions" for b in block["elements"]]
        button = next(button for button in buttons if button["action_id"] == action_id)
        payload = {
            "type": "block_actions",
            "user": {"id": user, "username": name, "name": name},
            "container": {"type": "message", "message_ts": message["ts"], "channel_id": message["channel"]},
            "trigger_id": "12345.98765.abcd",
            "response_url": f"{self.origin}/respond",
            "actions": [{"type": "button", "action_id": action_id, "value": button["value"]}],
        }
        return self.build_interaction(payload)

    def build_submission(self, form: dict[str, Any], text: str, user: str, name: str = "alice") -> Interaction:
        """``user`` sends a form that was opened."""
        field_block = next(block for block in form["blocks"] if block["type"] == "input")
        values = {field_block["block_id"]: {field_block["element"]["action_id"]: {"value": text or None}}}
        view = {key: form[key] for key in ("callback_id", "private_metadata")}
        payload = {
            "type": "view_submission",
            "user": {"id": user, "username": name, "name": name},
            "view": {**view, "state": {"values": values}},
        }
        return self.build_interaction(payload)

    def build_interaction(self, payload: dict[str, Any]) -> Interaction:
        body = urlencode({"payload": json.dumps(payload)}).encode()
        return Interaction(body, self.sign(body))

    async def deliver(self, url: str, interaction: Interaction) -> tuple[int, str]:
        """Posts the interaction to us; status and text of the answer."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=interaction.body, headers=interaction.headers) as response,
        ):
            return response.status, await response.text()

    async def _handle(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        self.calls.append(method)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"ok": False, "error": "invalid_auth"})
        waiting = self.failures.get(method)
        if waiting:
            failure = waiting.pop(0)
            if isinstance(failure, tuple):
                return web.Response(status=failure[0], headers=failure[1])
            return web.json_response(failure)
        body = await request.json() if request.method == "POST" else dict(request.query)
        return web.json_response({"ok": True, **self._answer(method, body)})

    def _answer(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        match method:
            case "auth.test":
                return {"user_id": "U0BOT", "team": "Test"}
            case "chat.postMessage":
                message = {**body, "ts": f"{time.time():.6f}"}
                if body["channel"].startswith("U"):
                    message["channel"] = f"D{body['channel'][1:]}"
                self.messages.append(message)
                return {"channel": message["channel"], "ts": message["ts"]}
            case "chat.update":
                self.updates.append(body)
                return {"ts": body["ts"]}
            case "views.open":
                self.forms.append(body["view"])
                return {"view": body["view"]}
            case "conversations.open":
                return {"channel": {"id": f"D{body['users'][1:]}"}}
            case "conversations.history":
                found = [m for m in self.messages if m["channel"] == body["channel"]]
                return {"messages": [m for m in reversed(found) if float(m["ts"]) >= float(body.get("oldest", 0))]}
        return {"ok": False, "error": "unknown_method"}

    async def _handle_whisper(self, request: web.Request) -> web.Response:
        self.whispers.append(await request.json())
        return web.Response(text="ok")
