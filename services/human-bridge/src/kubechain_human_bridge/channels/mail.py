"""The mail that asks. Pure: from an Ask to an EmailMessage.

Nothing that a model or a user wrote gets into a header unchecked, or into the HTML unescaped. In the plain part it is
indented, so that no line of it passes for one of ours, such as a link to answer with. The links lead to pages that ask
once more, because the scanners of mail systems follow whatever they find.
"""

from __future__ import annotations

from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from html import escape

from kubechain_human_bridge.channels.ask_text import facts, headline, notice, one_line, pretty_arguments
from kubechain_human_bridge.channels.base import Ask

_BODY = "font-family:sans-serif;line-height:1.5"
_CODE = "background:#f4f4f5;border:1px solid #d4d4d8;padding:.75em;white-space:pre-wrap;overflow-wrap:anywhere"


class MailAddressError(ValueError):
    """An address that no mail can carry; the text says which."""


def build_mail(ask: Ask, *, sender: str, recipient: str, subject: str | None) -> EmailMessage:
    """The mail, with a Message-ID that is a function of the request. Raises MailAddressError."""
    origin = parse_address(sender)
    mail = EmailMessage()
    mail["From"] = origin
    mail["To"] = parse_address(recipient)
    mail["Subject"] = one_line(subject or f"{headline(ask)} (task {ask.task})", 900)
    mail["Date"] = format_datetime(ask.requested_at)
    mail["Message-ID"] = f"<{ask.external_call_id}@{_ascii_domain(origin)}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    mail.set_content(build_text(ask))
    mail.add_alternative(build_html(ask), subtype="html")
    return mail


def parse_address(text: str) -> Address:
    """``Name <user@host>`` or ``user@host``. Raises MailAddressError."""
    name, spec = parseaddr(one_line(text, 1000))
    try:
        address = Address(display_name=name, addr_spec=spec)
    except (ValueError, IndexError, LookupError) as error:
        raise MailAddressError(f"{one_line(text)!r} is not an e-mail address") from error
    if not (address.username and address.domain):
        raise MailAddressError(f"{one_line(text)!r} is not an e-mail address")
    return address


def build_text(ask: Ask) -> str:
    """The plain part."""
    lines = [f"{name}: {_indent(value).lstrip()}" for name, value in facts(ask)]
    parts = [one_line(headline(ask), 900) + ".", notice(ask), "\n".join(lines)]
    if ask.kind == "Approval":
        parts.append(f"Arguments:\n{_indent(pretty_arguments(ask.arguments))}")
    else:
        parts.append(f"Question:\n{_indent(ask.message)}")
    links = [f"{label}: {url}" for label, url in _links(ask)]
    parts += ["\n".join(links), _footer(ask)]
    return "\n\n".join(part for part in parts if part) + "\n"


def build_html(ask: Ask) -> str:
    """The HTML part; everything from outside is escaped."""
    rows = "".join(
        f'<tr><th style="text-align:left;padding-right:1em;vertical-align:top">{escape(name)}</th>'
        f'<td style="white-space:pre-wrap">{escape(value)}</td></tr>'
        for name, value in facts(ask)
    )
    title, content = ("Question", ask.message)
    if ask.kind == "Approval":
        title, content = "Arguments", pretty_arguments(ask.arguments)
    again = f"<p><strong>{escape(notice(ask))}</strong></p>" if ask.again else ""
    links = " &nbsp; ".join(f'<a href="{escape(url)}">{escape(label)}</a>' for label, url in _links(ask))
    return (
        f'<!doctype html><html lang="en"><body style="{_BODY}"><h1 style="font-size:1.2em">{escape(headline(ask))}</h1>'
        f'{again}<table>{rows}</table><h2 style="font-size:1em">{title}</h2>'
        f'<pre style="{_CODE}">{escape(content)}</pre>'
        f'<p style="font-size:1.1em">{links}</p><p style="color:#52525b">{escape(_footer(ask))}</p></body></html>'
    )


def _links(ask: Ask) -> list[tuple[str, str]]:
    links: list[tuple[str, str]] = []
    if ask.answer_link and ask.kind == "Approval":
        links += [("Approve", f"{ask.answer_link}#approve"), ("Reject", f"{ask.answer_link}#reject")]
    elif ask.answer_link:
        links.append(("Answer", f"{ask.answer_link}#answer"))
    if ask.page_link:
        links.append(("See the whole request", ask.page_link))
    return links


def _footer(ask: Ask) -> str:
    shown = "The links open a page that asks you to confirm; nothing happens before." if ask.answer_link else ""
    return f"{shown} Do not pass this mail on: whoever has it can answer. Request {ask.external_call_id}.".strip()


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _ascii_domain(address: Address) -> str:
    try:
        return address.domain.encode("idna").decode()
    except UnicodeError:
        return "kubechain.invalid"
