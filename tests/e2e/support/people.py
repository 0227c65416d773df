"""Where the people of the tests are reached, other than by HumanLayer: a mailbox, and a program behind a webhook."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Self

import requests
from aiohttp import web
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

_LINK = re.compile(r"^Approve: (\S+)$", re.MULTILINE)


class Mailbox:
    """A mail server that keeps what it is sent."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self._controller = Controller(self, hostname="127.0.0.1", port=0)

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()

    @property
    def port(self) -> int:
        server = self._controller.server
        assert server is not None
        return int(server.sockets[0].getsockname()[1])

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        mail = message_from_bytes(envelope.original_content or b"", policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"


def read_text(mail: EmailMessage) -> str:
    """The plain part of a mail."""
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def find_link(mail: EmailMessage) -> str:
    """The link to approve with."""
    found = _LINK.search(read_text(mail))
    assert found is not None, read_text(mail)
    return found[1].partition("#")[0]


class Webhook:
    """A program that is told of requests and answers later, signed by Standard Webhooks with its own code."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self.told: list[dict[str, Any]] = []
        self.bad_signatures = 0

    def build_app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/ask", self._take)
        return app

    def answer(self, request: Mapping[str, Any], **answer: Any) -> requests.Response:
        """Call back about a request."""
        body = json.dumps({"token": request["token"], **answer}).encode()
        stamp = str(int(time.time()))
        headers = {"webhook-id": "answer-1", "webhook-timestamp": stamp, "Content-Type": "application/json"}
        headers["webhook-signature"] = f"v1,{self._sign('answer-1', stamp, body)}"
        return requests.post(request["callbackUrl"], data=body, headers=headers, timeout=30)

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        expected = self._sign(request.headers["webhook-id"], request.headers["webhook-timestamp"], body)
        if request.headers["webhook-signature"] != f"v1,{expected}":
            self.bad_signatures += 1
            return web.Response(status=401)
        self.told.append(json.loads(body))
        return web.Response(status=204)

    def _sign(self, message_id: str, stamp: str, body: bytes) -> str:
        signed = f"{message_id}.{stamp}.".encode() + body
        return base64.b64encode(hmac.new(self._secret.encode(), signed, hashlib.sha256).digest()).decode()
