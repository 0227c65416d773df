"""E-mail through a mail server of the user's own.

One connection per mail: requests to people are rare, and an idle one would be closed by the server anyway. TLS
certificates are checked against the system's authorities (``SSL_CERT_FILE`` adds one's own).
https://www.rfc-editor.org/rfc/rfc5321#section-4.2.1 (4yz: try again, 5yz: do not)
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiosmtplib

from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec, SMTPServer
from kubechain_human_bridge.channels.ask_text import one_line
from kubechain_human_bridge.channels.base import Ask, OwnChannel
from kubechain_human_bridge.channels.errors import ChannelError, ChannelRefusedError, ChannelUnavailableError
from kubechain_human_bridge.channels.mail import MailAddressError, build_mail, parse_address

_TIMEOUT = 20.0
_DEFAULT_PORTS = {"StartTLS": 587, "TLS": 465, "None": 25}


class SMTPChannel(OwnChannel):
    """``secrets["passwordFrom"]`` is the password of ``username``, where there is one."""

    def __init__(self, spec: ContactChannelSpec, secrets: Mapping[str, str]) -> None:
        if spec.email is None or spec.email.smtp is None:
            raise ChannelRefusedError("the channel has no email.smtp")
        self._email = spec.email
        self._server: SMTPServer = spec.email.smtp
        self._password = secrets.get("passwordFrom")
        self._security = self._server.security or "StartTLS"
        self._where = f"{self._server.host}:{self._server.port or _DEFAULT_PORTS[self._security]}"

    async def validate(self) -> str:
        """Connects and signs in; no mail is sent."""
        try:
            parse_address(self._server.sender)
            parse_address(self._email.address)
        except MailAddressError as error:
            raise ChannelRefusedError(str(error)) from None
        async with self._connected() as client:
            await client.noop()
        return "SMTP email channel validated successfully"

    async def send(self, ask: Ask) -> str:
        """Sends the mail; sent twice it has the same Message-ID."""
        try:
            mail = build_mail(
                ask, sender=self._server.sender, recipient=self._email.address, subject=self._email.subject
            )
        except MailAddressError as error:
            raise ChannelRefusedError(str(error)) from None
        async with self._connected() as client:
            await client.send_message(mail)
        return f"Mail sent to {self._email.address}"

    async def aclose(self) -> None:
        """Closes nothing: nothing is kept open."""

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiosmtplib.SMTP]:
        """A session that has signed in; what goes wrong in it is a ChannelError."""
        try:
            client = aiosmtplib.SMTP(
                hostname=self._server.host,
                port=self._server.port or _DEFAULT_PORTS[self._security],
                use_tls=self._security == "TLS",
                start_tls=self._security == "StartTLS",
                username=self._server.username,
                password=self._password if self._server.username else None,
                local_hostname=socket.gethostname(),
                tls_context=ssl.create_default_context() if self._security != "None" else None,
                timeout=_TIMEOUT,
            )
            async with client:
                yield client
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise self._explain(error) from None

    def _explain(self, error: Exception) -> ChannelError:
        """A sentence of what the server says, which never repeats what we told it."""
        match error:
            case aiosmtplib.SMTPAuthenticationError(code=code) if code >= 500:
                return ChannelRefusedError(
                    f"the mail server {self._where} does not let {self._server.username} sign in ({code}):"
                    " check username and the password's Secret"
                )
            case aiosmtplib.SMTPRecipientsRefused(recipients=[first, *_]):
                return self._explain(first)
            case aiosmtplib.SMTPResponseException(code=code):
                kind = ChannelRefusedError if code >= 500 else ChannelUnavailableError
                return kind(f"the mail server {self._where} answered {code} {self._without_password(error.message)}")
            case aiosmtplib.SMTPNotSupported() | ValueError():
                return ChannelRefusedError(f"the mail server {self._where} can not be used: {one_line(str(error))}")
            case aiosmtplib.SMTPException() if type(error) is aiosmtplib.SMTPException:  # no AUTH, no STARTTLS
                return ChannelRefusedError(f"the mail server {self._where} can not be used: {one_line(str(error))}")
        certificate = _certificate_problem(error)
        if certificate:
            return ChannelRefusedError(
                f"the certificate of the mail server {self._where} is not trusted: {certificate}"
            )
        return ChannelUnavailableError(
            f"the mail server {self._where} can not be reached: {one_line(str(error)) or type(error).__name__}"
        )

    def _without_password(self, text: str) -> str:
        line = one_line(text)
        return line.replace(self._password, "[redacted]") if self._password else line


def _certificate_problem(error: BaseException | None) -> str:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return ""
