"""What a window keeps itself, and what it only points at.

A status write costs by the bytes and, much more, by the number of values in the object, so a window is bounded in both
(docs/decisions/0010). Three rules, applied when a window is written:

1. A long tool result stays where it is, in its TaskRunToolCall, and so do long arguments once the call exists. The
   window shows their beginning and a reference.
2. Any other long text goes into a ConfigMap of the Task.
3. When a window has too many messages, or still too many bytes, its oldest ones move into a page: a ConfigMap that
   holds them as they stood in the window, and a reference to the page before. One entry of role ``earlier`` stands for
   all of them.

Texts are stored before the status that points at them. Their names hold a hash of the text: the same decision stores
the same text under the same name, and what a crash leaves behind goes with the Task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kubechain_common.api.content import (
    PAGE_KEY,
    TEXT_KEY,
    arguments_key,
    result_key,
    split_head,
    split_window,
    stored_key,
    write_page,
)
from kubechain_common.api.names import text_name
from kubechain_common.api.stored_text import StoredText
from kubechain_common.api.v1alpha1.conversation import (
    ArgumentsSource,
    ConfigMapKeyRef,
    ContentSource,
    Message,
    MessageToolCall,
)
from kubechain_common.api.v1alpha1.meta import Ref
from kubechain_common.api.v1alpha1.task import Task
from kubechain_common.api.v1alpha1.taskruntoolcall import TaskRunToolCall, tool_text

MESSAGE_LIMIT = 4 * 1024
"""Bytes of a message's text that a window holds itself."""

ARGUMENTS_LIMIT = 1024
"""Bytes of a call's arguments that a window holds itself."""

ANSWER_LIMIT = 256 * 1024
"""Bytes of a final answer that the window holds itself: it is written once, and read by people."""

WINDOW_MESSAGES = 32
"""Entries of a window; over this the oldest become a page."""

WINDOW_BYTES = 24 * 1024
"""Bytes of all messages of a window; over this the oldest become a page."""

KEPT_MESSAGES = 12
"""Entries that stay behind the reference to a new page."""

KEPT_BYTES = WINDOW_BYTES // 2

PAGE_BYTES = 512 * 1024
"""Bytes of a page, well below what a ConfigMap takes. One message over it has a page of its own."""

_HEAD = 2
_PREVIEW = 96


@dataclass(frozen=True)
class Offloaded:
    """A window with what has to be stored before it is written.

    ``texts`` are the texts behind its new references, by ``content.reference_key``.
    """

    window: list[Message]
    stored: tuple[StoredText, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


def offload_answer(task: Task, window: Sequence[Message], answer: Message) -> Offloaded:
    """The window with the model's answer. Its calls do not exist yet, so their arguments stay."""
    limit = MESSAGE_LIMIT if answer.tool_calls else ANSWER_LIMIT
    return _store_long([*window, answer], len(window), limit, task)


def offload_results(
    task: Task, window: Sequence[Message], children: Mapping[str, TaskRunToolCall], *, count: int
) -> Offloaded:
    """The window that ends with the results of its last calls.

    ``children`` are those calls by tool call id; ``count`` is the number of messages in the whole conversation.
    """
    texts: dict[str, str] = {}
    shortened = [_point_at_call(message, children, texts) for message in window]
    stored = _store_long(shortened, 0, MESSAGE_LIMIT, task)
    return _join(Offloaded([], texts=texts), stored, _page_out(task, stored.window, count))


def offload_start(task: Task, window: Sequence[Message]) -> Offloaded:
    """A window that begins with whole messages, which may be very many: those in the middle go into pages whole."""
    middle_ends = max(_HEAD, len(window) - KEPT_MESSAGES)
    head = _store_long(window[:_HEAD], 0, MESSAGE_LIMIT, task)
    middle = _store_long(window[_HEAD:middle_ends], 0, PAGE_BYTES // 2, task)
    tail = _store_long(window[middle_ends:], 0, MESSAGE_LIMIT, task)
    whole = [*head.window, *middle.window, *tail.window]
    return _join(head, middle, tail, _page_out(task, whole, len(whole)))


def _join(*parts: Offloaded) -> Offloaded:
    """The window of the last part, and what all of them need."""
    stored = dict.fromkeys(text for part in parts for text in part.stored)
    texts = {key: text for part in parts for key, text in part.texts.items()}
    return Offloaded(parts[-1].window, tuple(stored), texts)


# --- one message -----------------------------------------------------------------------------------------------------


def shorten_text(text: str) -> str:
    """The beginning of the text, and how long it is, for people."""
    return f"{text[:_PREVIEW]}... [{_bytes(text):,} bytes]"


def _point_at_call(message: Message, children: Mapping[str, TaskRunToolCall], texts: dict[str, str]) -> Message:
    """The message with references to its calls, in place of what those hold, word for word."""
    if message.role == "tool":
        call = children.get(message.tool_call_id or "")
        if call is None or _fits(message, MESSAGE_LIMIT) or tool_text(call) != message.content:
            return message
        texts[result_key(call.name)] = message.content
        return _shorten(message, ContentSource(task_run_tool_call_ref=Ref(name=call.name)))
    if any(_bytes(call.function.arguments) > ARGUMENTS_LIMIT for call in message.tool_calls or ()):
        calls = [_point_at_arguments(call, children.get(call.id), texts) for call in message.tool_calls or ()]
        return message.model_copy(update={"tool_calls": calls})
    return message


def _point_at_arguments(call: MessageToolCall, child: TaskRunToolCall | None, texts: dict[str, str]) -> MessageToolCall:
    function = call.function
    has_home = child is not None and child.spec.arguments == function.arguments
    if not has_home or child is None or function.arguments_from is not None or _fits_arguments(call):
        return call
    texts[arguments_key(child.name)] = function.arguments
    source = ArgumentsSource(task_run_tool_call_ref=Ref(name=child.name))
    short = {"arguments": shorten_text(function.arguments), "arguments_from": source}
    return call.model_copy(update={"function": function.model_copy(update=short)})


def _store_long(window: Sequence[Message], first: int, limit: int, task: Task) -> Offloaded:
    """Put what is over the limit, from message ``first`` on, into ConfigMaps."""
    stored: list[StoredText] = []
    kept = list(window[:first])
    for message in window[first:]:
        if _fits(message, limit):
            kept.append(message)
            continue
        text = StoredText(text_name(task.name, task.uid, message.content), TEXT_KEY, message.content)
        stored.append(text)
        kept.append(_shorten(message, _source_of(text)))
    return Offloaded(kept, tuple(dict.fromkeys(stored)), _texts_of(stored))


def _shorten(message: Message, source: ContentSource) -> Message:
    return message.model_copy(update={"content": shorten_text(message.content), "content_from": source})


# --- pages -----------------------------------------------------------------------------------------------------------


def _page_out(task: Task, window: list[Message], count: int) -> Offloaded:
    """Move the oldest messages into pages, if the window is too long."""
    sizes = [_size(message) for message in window]
    if len(window) <= WINDOW_MESSAGES and sum(sizes) <= WINDOW_BYTES:
        return Offloaded(window)
    head, earlier, rest = split_window(window)
    if earlier is None:
        head, rest = split_head(window)
    cut = _first_kept(rest, sizes[len(window) - len(rest) :])
    behind = count - len(head) - len(rest)
    pages: list[StoredText] = []
    for batch in _batches(rest[:cut]):
        page = _build_page(task, [*([earlier] if earlier else []), *batch])
        pages.append(page)
        behind += len(batch)
        earlier = Message(role="earlier", content=f"{behind} earlier messages", content_from=_source_of(page))
    short = [*head, *([earlier] if earlier else []), *rest[cut:]]
    return Offloaded(short, tuple(pages), _texts_of(pages))


def _first_kept(rest: Sequence[Message], sizes: Sequence[int]) -> int:
    """Where what stays begins: with an answer of the model, if one is near the limits."""
    cut, kept = len(rest), 0
    while cut > 0 and len(rest) - cut < KEPT_MESSAGES and kept + sizes[cut - 1] <= KEPT_BYTES:
        cut -= 1
        kept += sizes[cut]
    return next((i for i in range(cut, len(rest)) if rest[i].role == "assistant"), cut)


def _batches(messages: Sequence[Message]) -> Iterable[list[Message]]:
    batch: list[Message] = []
    filled = 0
    for message in messages:
        size = _size(message)
        if batch and filled + size > PAGE_BYTES:
            yield batch
            batch, filled = [], 0
        batch.append(message)
        filled += size
    if batch:
        yield batch


def _build_page(task: Task, messages: Sequence[Message]) -> StoredText:
    text = write_page(messages)
    return StoredText(text_name(task.name, task.uid, text), PAGE_KEY, text)


# --- sizes -----------------------------------------------------------------------------------------------------------


def _source_of(text: StoredText) -> ContentSource:
    return ContentSource(config_map_key_ref=ConfigMapKeyRef(name=text.name, key=text.key))


def _texts_of(stored: Iterable[StoredText]) -> dict[str, str]:
    return {stored_key(text.name, text.key): text.text for text in stored}


def _fits(message: Message, limit: int) -> bool:
    return message.content_from is not None or _bytes(message.content) <= limit


def _fits_arguments(call: MessageToolCall) -> bool:
    return _bytes(call.function.arguments) <= ARGUMENTS_LIMIT


def _bytes(text: str) -> int:
    return len(text.encode())


def _size(message: Message) -> int:
    return _bytes(message.model_dump_json(by_alias=True, exclude_none=True))
