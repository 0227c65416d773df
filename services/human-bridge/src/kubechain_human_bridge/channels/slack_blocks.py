"""Slack messages and forms. Pure.

What a model or a user wrote goes into rich text, which Slack shows as it is: no mention, link or markup comes of it.
https://docs.slack.dev/reference/block-kit
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kubechain_human_bridge.channels.ask_text import cut, facts, headline, notice, one_line, pretty_arguments
from kubechain_human_bridge.channels.base import Ask, Kind

ACTION_APPROVE = "kubechain_approve"
ACTION_REJECT = "kubechain_reject"
ACTION_ANSWER = "kubechain_answer"

FORM_REJECT = "kubechain_reject_form"
FORM_ANSWER = "kubechain_answer_form"
INPUT_BLOCK = "kubechain_text"
INPUT_ACTION = "text"

EVENT_TYPE = "kubechain_request"

_MAX_HEADER = 150
_MAX_FACT = 500
_MAX_CODE = 2800
_MAX_ERROR = 300

Block = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What a message is about."""

    headline: str
    facts: list[tuple[str, str]]
    content: str

    @classmethod
    def of(cls, ask: Ask) -> Subject:
        content = pretty_arguments(ask.arguments) if ask.kind == "Approval" else ask.message
        return cls(headline(ask), facts(ask), content)


def build_request(ask: Ask, token: str) -> dict[str, Any]:
    """The content of chat.postMessage; the metadata is what a request is recognised by."""
    blocks = _describe(Subject.of(ask))
    if ask.again:
        blocks.insert(1, _context(notice(ask)))
    blocks.append({"type": "actions", "elements": _buttons(ask.kind, token)})
    if ask.page_link:
        link = {"type": "link", "url": ask.page_link, "text": "See the whole request"}
        blocks.append({"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [link]}]})
    return {
        "text": escape(headline(ask)),
        "blocks": blocks,
        "metadata": {"event_type": EVENT_TYPE, "event_payload": {"external_call_id": ask.external_call_id}},
        "unfurl_links": False,
        "unfurl_media": False,
    }


def build_decided(subject: Subject, sentence: str) -> dict[str, Any]:
    """The message in place of the request, once nobody is asked any more."""
    blocks = [*_describe(subject), _context(sentence)]
    return {"text": escape(f"{subject.headline}: {sentence}"), "blocks": blocks}


def build_form(kind: Kind, metadata: str, subject: Subject) -> dict[str, Any]:
    """The form behind a button: why a call is rejected, or the answer to a question."""
    approval = kind == "Approval"
    field = {
        "type": "input",
        "block_id": INPUT_BLOCK,
        "optional": approval,
        "label": _plain("Comment for the agent" if approval else "Your answer"),
        "element": {"type": "plain_text_input", "action_id": INPUT_ACTION, "multiline": True, "max_length": 3000},
    }
    return {
        "type": "modal",
        "callback_id": FORM_REJECT if approval else FORM_ANSWER,
        "private_metadata": metadata,
        "title": _plain("Reject the call" if approval else "Answer the question"),
        "submit": _plain("Reject" if approval else "Send"),
        "close": _plain("Back"),
        "blocks": [*_describe(subject), field],
    }


def build_form_error(sentence: str) -> dict[str, Any]:
    """The answer to a submitted form that did not count."""
    return {"response_action": "errors", "errors": {INPUT_BLOCK: one_line(sentence, _MAX_ERROR)}}


def escape(text: str) -> str:
    """The text for places where Slack reads markup.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _describe(subject: Subject) -> list[Block]:
    lines: list[Block] = []
    for name, value in subject.facts:
        lines += [
            {"type": "text", "text": f"{name}: ", "style": {"bold": True}},
            {"type": "text", "text": f"{cut(value, _MAX_FACT)}\n"},
        ]
    elements: list[Block] = [{"type": "rich_text_section", "elements": lines}] if lines else []
    code = {"type": "text", "text": cut(subject.content, _MAX_CODE) or " "}
    elements.append({"type": "rich_text_preformatted", "elements": [code]})
    return [
        {"type": "header", "text": _plain(one_line(subject.headline, _MAX_HEADER))},
        {"type": "rich_text", "elements": elements},
    ]


def _buttons(kind: Kind, token: str) -> list[Block]:
    if kind == "Contact":
        return [_button("Answer…", ACTION_ANSWER, token, "primary")]
    return [_button("Approve", ACTION_APPROVE, token, "primary"), _button("Reject…", ACTION_REJECT, token, "danger")]


def _button(label: str, action: str, token: str, style: str) -> Block:
    return {"type": "button", "text": _plain(label), "action_id": action, "value": token, "style": style}


def _context(text: str) -> Block:
    return {"type": "context", "elements": [_plain(one_line(text, 1900))]}


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text, "emoji": False}
