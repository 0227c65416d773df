"""The page behind a link, as HTML. Pure: one document, no script, nothing from elsewhere; everything is escaped."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from kubechain_human_bridge.web.request_view import RequestView

_STYLE = """
:root{color-scheme:light dark}
body{font:1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:0 auto;padding:1rem}
h1{font-size:1.3rem}h2{font-size:1.05rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem}
dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere;white-space:pre-wrap}
pre,textarea{font:.9rem/1.4 ui-monospace,monospace}
pre{border:1px solid GrayText;border-radius:.3rem;padding:.75rem;white-space:pre-wrap;overflow-wrap:anywhere}
form{border:1px solid GrayText;border-radius:.3rem;padding:.75rem;margin:1rem 0}
form:target{outline:3px solid Highlight}
label{display:block;font-weight:600}
textarea{width:100%;box-sizing:border-box;min-height:5rem}
button{font:inherit;padding:.5rem 1.25rem;margin-top:.5rem;cursor:pointer}
:focus-visible{outline:3px solid Highlight;outline-offset:2px}
@media(max-width:30rem){dl{grid-template-columns:1fr}}
""".strip()

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
}


def build_request_page(view: RequestView, by: str, problem: str = "") -> str:
    """The request and its forms, for ``by`` to answer; ``problem`` says why an answer was not taken."""
    title = "Question" if view.is_question else "Arguments"
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in view.facts)
    alert = f'<p role="alert"><strong>{escape(problem)}</strong></p>' if problem else ""
    forms = _answer_form() if view.is_question else _approve_form(view.content) + _reject_form()
    return _document(
        view.headline,
        f'{alert}<dl>{facts}</dl><h2 id="content">{title}</h2>'
        f'<pre tabindex="0" aria-labelledby="content">{escape(view.content)}</pre>'
        f"<p>You answer as <strong>{escape(by or 'somebody')}</strong>. One answer counts: the first.</p>{forms}",
    )


def build_message_page(title: str, sentence: str) -> str:
    """One sentence, such as what came of an answer."""
    return _document(title, f'<p role="status">{escape(sentence)}</p>')


def _approve_form(arguments: str) -> str:
    return (
        '<form id="approve" method="post"><h2>Approve</h2><details><summary>Change the arguments first</summary>'
        '<label for="arguments">Arguments (JSON)</label>'
        # A browser drops one line break after the tag, so it is given one.
        f'<textarea id="arguments" name="arguments" spellcheck="false">\n{escape(arguments)}</textarea></details>'
        '<button name="action" value="approve">Approve this call</button></form>'
    )


def _reject_form() -> str:
    return (
        '<form id="reject" method="post"><h2>Reject</h2>'
        '<label for="comment">Comment for the agent (it reads this; may be empty)</label>'
        '<textarea id="comment" name="comment"></textarea>'
        '<button name="action" value="reject">Reject this call</button></form>'
    )


def _answer_form() -> str:
    return (
        '<form id="answer" method="post"><h2>Answer</h2><label for="message">Your answer</label>'
        '<textarea id="message" name="message" required></textarea>'
        '<button name="action" value="respond">Send the answer</button></form>'
    )


def _document(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
