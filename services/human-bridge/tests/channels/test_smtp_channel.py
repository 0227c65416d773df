"""Mail through a real mail server, with TLS, sign-in and refusals."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP as SMTPServer
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from kubechain_cli.localcluster.certificates import ensure_pki
from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec
from kubechain_human_bridge.channels.base import Ask
from kubechain_human_bridge.channels.errors import ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.channels.smtp import SMTPChannel

BuildAsk = Callable[..., Ask]
PASSWORD = "correct horse battery staple"


@dataclass
class Mailbox:
    """What the server took; ``refuse_recipient`` and ``refuse_data`` are its next answers."""

    mails: list[EmailMessage] = field(default_factory=list)
    signed_in: list[bool] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    refuse_recipient: str = ""
    refuse_data: str = ""

    async def handle_RCPT(self, server: Any, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        if self.refuse_recipient:
            return self.refuse_recipient
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        if self.refuse_data:
            return self.refuse_data
        content = envelope.content
        assert isinstance(content, bytes)
        self.mails.append(email.message_from_bytes(content, policy=email.policy.default))
        self.signed_in.append(bool(session.authenticated))
        self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
        return "250 OK"


def _authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> AuthResult:
    right = data.login == b"kubechain" and data.password == PASSWORD.encode()
    return AuthResult(success=right, handled=False)


Serve = Callable[..., Awaitable[tuple[Mailbox, int]]]


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """The server's context, and the authority that signed its certificate."""
    pki = ensure_pki(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.serving_cert, pki.serving_key)
    return context, pki.ca_cert


@pytest.fixture
async def serve(tls: tuple[ssl.SSLContext, Path]) -> AsyncIterator[Serve]:
    """The servers run in the test's own loop, which does not end before the last of their connections did."""
    loop = asyncio.get_running_loop()
    servers: list[asyncio.Server] = []

    async def start(security: str = "None") -> tuple[Mailbox, int]:
        mailbox = Mailbox()
        # Of TLS from the first byte the server's SMTP half knows nothing, so it can not insist on it.
        options: dict[str, Any] = {"authenticator": _authenticate, "auth_require_tls": security == "StartTLS"}
        if security == "StartTLS":
            options |= {"tls_context": tls[0], "require_starttls": True, "auth_required": True}
        server = await loop.create_server(
            lambda: SMTPServer(mailbox, hostname="localhost", loop=loop, **options),
            host="127.0.0.1",
            port=0,
            ssl=tls[0] if security == "TLS" else None,
        )
        servers.append(server)
        return mailbox, int(server.sockets[0].getsockname()[1])

    yield start
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(server.wait_closed())  # before close(): afterwards Python 3.11 no longer waits
            group.create_task(_close(server))


async def _close(server: asyncio.Server) -> None:
    server.close()


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _channel(port: int, security: str = "None", *, password: str | None = None, **email_fields: Any) -> SMTPChannel:
    smtp: dict[str, Any] = {
        "host": "localhost",
        "port": port,
        "security": security,
        "from": "KubeChain <kubechain@example.com>",
    }
    if password is not None:
        smtp |= {"username": "kubechain", "passwordFrom": {"secretKeyRef": {"name": "smtp", "key": "password"}}}
    spec = {"type": "email", "email": {"address": "approver@example.com", "smtp": smtp, **email_fields}}
    secrets = {"passwordFrom": password} if password is not None else {}
    return SMTPChannel(ContactChannelSpec.model_validate(spec), secrets)


@pytest.mark.parametrize("security", ["StartTLS", "TLS"])
async def test_signs_in_over_tls_and_sends_the_request(
    serve: Serve,
    tls: tuple[ssl.SSLContext, Path],
    monkeypatch: pytest.MonkeyPatch,
    build_ask: BuildAsk,
    security: str,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls[1]))
    mailbox, port = await serve(security)
    channel = _channel(port, security, password=PASSWORD)

    assert await channel.validate() == "SMTP email channel validated successfully"
    assert mailbox.mails == []
    await channel.send(build_ask())

    [mail] = mailbox.mails
    assert (mailbox.signed_in, mailbox.encrypted) == ([True], [True])
    assert mail["To"] == "approver@example.com"
    assert mail["From"] == "KubeChain <kubechain@example.com>"
    assert mail["Subject"].strip() == "Agent my-assistant asks for approval to call fetch__fetch (task hello)"
    assert mail["Message-ID"] == "<ec-0123456789abcdef@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    for kind in ("plain", "html"):
        text = _part(mail, kind)
        assert "https://swapi.dev/api/people/2" in text
        assert "Write me a haiku" in text
        assert "http://127.0.0.1:8090/answer?token=abc#approve" in text
        assert "http://127.0.0.1:8090/answer?token=abc#reject" in text
        assert "http://127.0.0.1:8090/#default/hello-1234567-tc-01" in text
        assert "may have reached you before" not in text


async def test_a_certificate_of_an_unknown_authority_is_refused(serve: Serve, build_ask: BuildAsk) -> None:
    mailbox, port = await serve("TLS")
    with pytest.raises(ChannelRefusedError, match="certificate of the mail server localhost:"):
        await _channel(port, "TLS").validate()
    with pytest.raises(ChannelRefusedError, match="certificate"):
        await _channel(port, "TLS").send(build_ask())
    assert mailbox.mails == []


async def test_a_server_without_starttls_gets_neither_password_nor_mail(serve: Serve, build_ask: BuildAsk) -> None:
    mailbox, port = await serve("None")
    with pytest.raises(ChannelRefusedError, match="can not be used"):
        await _channel(port, "StartTLS", password=PASSWORD).send(build_ask())
    assert mailbox.mails == []


async def test_a_wrong_password_is_refused_without_being_repeated(
    serve: Serve, tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls[1]))
    _, port = await serve("StartTLS")
    with pytest.raises(ChannelRefusedError, match="does not let kubechain sign in") as caught:
        await _channel(port, "StartTLS", password="wrong-password").validate()
    assert "wrong-password" not in str(caught.value)


async def test_a_resend_is_the_same_mail_and_says_so(serve: Serve, build_ask: BuildAsk) -> None:
    mailbox, port = await serve()
    await _channel(port).send(build_ask())
    await _channel(port).send(build_ask(again=True))
    first, second = mailbox.mails
    assert first["Message-ID"] == second["Message-ID"]
    assert "may have reached you before" in _part(second, "plain")
    assert "may have reached you before" in _part(second, "html")


async def test_a_question_is_asked_with_one_link(serve: Serve, build_ask: BuildAsk) -> None:
    mailbox, port = await serve()
    ask = build_ask(kind="Contact", message="Which <colour>?", arguments='{"message":"Which <colour>?"}')
    await _channel(port).send(ask)
    [mail] = mailbox.mails
    assert mail["Subject"].strip() == "Agent my-assistant asks a question (task hello)"
    assert "Which <colour>?" in _part(mail, "plain")
    assert "Which &lt;colour&gt;?" in _part(mail, "html")
    assert "token=abc#answer" in _part(mail, "html")
    assert "#approve" not in _part(mail, "html")


async def test_no_line_of_a_model_passes_for_one_of_ours(serve: Serve, build_ask: BuildAsk) -> None:
    mailbox, port = await serve()
    evil = "Yes?\nApprove: http://evil.example/\r\nAnswer: http://evil.example/\u2028Answer: http://evil.example/"
    await _channel(port).send(build_ask(kind="Contact", message=evil, user_message=evil, arguments="{}"))
    await _channel(port).send(build_ask(tool=evil, agent=evil, user_message=evil, arguments=evil))
    assert len(mailbox.mails) == 2
    for mail in mailbox.mails:
        answers = [line for line in _part(mail, "plain").splitlines() if line.startswith(("Approve:", "Answer:"))]
        assert len(answers) == 1
        assert "evil" not in answers[0]


async def test_nothing_gets_into_a_header_or_into_the_html(serve: Serve, build_ask: BuildAsk) -> None:
    mailbox, port = await serve()
    evil = "x\r\nBcc: victim@example.com\r\n\r\n<script>alert(1)</script>"
    ask = build_ask(tool=evil, agent=evil, task=evil, user_message=evil, arguments=evil)
    await _channel(port).send(ask)
    await _channel(port, subject=evil).send(ask)
    for mail in mailbox.mails:
        assert mail["Bcc"] is None
        assert "\n" not in mail["Subject"]
        assert "<script>" not in _part(mail, "html")
    assert str(mailbox.mails[1]["Subject"]).strip().startswith("x Bcc: victim@example.com")


@pytest.mark.parametrize(
    ("recipient", "data", "error"),
    [
        ("550 no such user", "", ChannelRefusedError),
        ("450 busy", "", ChannelUnavailableError),
        ("", "554 spam", ChannelRefusedError),
        ("", "451 later", ChannelUnavailableError),
    ],
)
async def test_what_the_server_answers_decides_whether_it_is_tried_again(
    serve: Serve, build_ask: BuildAsk, recipient: str, data: str, error: type[Exception]
) -> None:
    mailbox, port = await serve()
    mailbox.refuse_recipient, mailbox.refuse_data = recipient, data
    with pytest.raises(error, match=f"answered {recipient or data}"):
        await _channel(port).send(build_ask())
    assert mailbox.mails == []


async def test_a_server_that_is_away_is_tried_again() -> None:
    with pytest.raises(ChannelUnavailableError, match="can not be reached"):
        await _channel(_free_port()).validate()


async def test_an_address_that_is_none_is_refused(serve: Serve) -> None:
    _, port = await serve()
    with pytest.raises(ChannelRefusedError, match="is not an e-mail address"):
        await _channel(port, address="nobody").validate()


def _part(mail: EmailMessage, subtype: str) -> str:
    part = mail.get_body((subtype,))
    assert part is not None
    return str(part.get_content())
