"""Where the people of the tests are reached, other than by HumanLayer: a mailbox, and a program behind a webhook."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Self

from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session

_LINK = re.compile(r"^Approve: (\S+)\s*$", re.MULTILINE)


class Mailbox:
    """A mail server that keeps what it is sent; ``async with`` it in the loop that is to serve it."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SMTP(self, hostname="mail.test"), "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        mail = message_from_bytes(bytes(envelope.original_content or b""), policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"


def read_text(mail: EmailMessage) -> str:
    """The plain part of a mail."""
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")  # some encodings keep the line ends of the wire


def find_link(mail: EmailMessage) -> str:
    """The link to approve with."""
    found = _LINK.search(read_text(mail))
    assert found is not None, read_text(mail)
    return found[1].partition("#")[0]


def fetch(url: str) -> tuple[int, str]:
    """Status and text of a page."""
    return _send(urllib.request.Request(url))


def post(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
    """Status and text of the answer, whichever it is."""
    return _send(urllib.request.Request(url, body, dict(headers), method="POST"))


def _send(request: urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


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

    def answer(self, request: Mapping[str, Any], **answer: Any) -> tuple[int, str]:
        """Call back about a request."""
        body = json.dumps({"token": request["token"], **answer}).encode()
        stamp = str(int(time.time()))
        headers = {"webhook-id": "answer-1", "webhook-timestamp": stamp, "Content-Type": "application/json"}
        headers["webhook-signature"] = f"v1,{self._sign('answer-1', stamp, body)}"
        return post(str(request["callbackUrl"]), body, headers)

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
