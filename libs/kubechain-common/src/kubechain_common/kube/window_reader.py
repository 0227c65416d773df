"""From a window with references to the conversation that the model reads.

A reference is followed only to an object that belongs to the Task, whatever the window says: otherwise whoever may
write a Task could read other people's objects with our rights. An object that is gone, or has lost its text, is an
error that names it; a preview never takes the place of the text.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from kubechain_common.api.content import (
    arguments_key,
    build_view,
    holds_view,
    read_page,
    reference_key,
    result_key,
    speak_summary,
    split_head,
    split_window,
    stored_key,
)
from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.conversation import ImageSource, Message, MessageToolCall, ShownImage
from kubechain_common.api.v1alpha1.taskruntoolcall import tool_text
from kubechain_common.kube.errors import KubeError, NotFoundError
from kubechain_common.kube.paths import core_path, resource_path
from kubechain_common.kube.text_cache import Page, TextCache
from kubechain_common.kube.text_store import belongs_to
from kubechain_common.messages import ObjectRef

READS_AT_ONCE = 16
"""Per reader, so that a long conversation which is read anew does not crowd out everything else."""

_MESSAGE_OVERHEAD = 600
"""About the bytes that a message takes beside its texts."""


class ObjectReader(Protocol):
    """The part of the client that reading needs."""

    async def request(self, method: str, path: str) -> dict[str, Any]: ...


class ContentLostError(KubeError):
    """A text of the conversation can not be had any more."""


class WindowReader:
    """Reads windows; what the cache holds is not asked for."""

    def __init__(self, kube: ObjectReader, cache: TextCache) -> None:
        self._kube = kube
        self._cache = cache
        self._reads = asyncio.Semaphore(READS_AT_ONCE)

    def learn(self, task: ObjectRef, texts: Mapping[str, str]) -> None:
        """Keeps texts that came with a request, so that they need not be read."""
        for key, text in texts.items():
            self._cache.put((task.uid, key), text, sys.getsizeof(text))

    async def read(self, task: ObjectRef, window: Sequence[Message]) -> list[Message]:
        """What the model reads: the whole conversation, or from its last summary on.

        Raises ContentLostError, or another KubeError when the API server fails.
        """
        head, messages = await self._collect(task, window, enough=holds_view)
        return [speak_summary(message) for message in await self._fill(task, build_view(head, messages))]

    async def read_record(self, task: ObjectRef, window: Sequence[Message]) -> list[Message]:
        """All that was ever said, summaries where they were given. Raises as ``read`` does."""
        head, messages = await self._collect(task, window, enough=lambda _: False)
        return list(await self._fill(task, [*head, *messages]))

    async def _collect(
        self, task: ObjectRef, window: Sequence[Message], enough: Callable[[Sequence[Message]], bool]
    ) -> tuple[list[Message], list[Message]]:
        """The beginning of the conversation, and its messages from the end back until they are ``enough``."""
        head, earlier, messages = split_window(window)
        if earlier is None:
            return split_head(window)
        read: set[str] = set()
        while earlier is not None and not enough(messages):
            key = _page_key(earlier)
            if key in read:  # whoever may write ConfigMaps could make one so, and us read it for ever
                raise ContentLostError(f"{_describe(key)} says that it comes before itself")
            read.add(key)
            page = await self._read_page(task, key)
            earlier = page.earlier
            messages = [*page.messages, *messages]
        return head, messages

    async def show_images(self, task: ObjectRef, messages: Sequence[Message], limit: int) -> list[Message]:
        """The messages with the ``data`` of the newest ``limit`` images; those before are named in their texts only.

        Raises as ``read`` does.
        """
        wanted = [(i, image) for i, message in enumerate(messages) for image in message.images or ()][-limit:]
        texts = await self._look_up(task, [_image_key(image) for _, image in wanted])
        shown: dict[int, list[ImageSource]] = {i: [] for i, message in enumerate(messages) if message.images}
        for i, image in wanted:
            shown[i].append(ShownImage(**dict(image), data=texts[_image_key(image)]))
        return [
            message.model_copy(update={"images": shown[i] or None}) if i in shown else message
            for i, message in enumerate(messages)
        ]

    async def _read_page(self, task: ObjectRef, key: str) -> Page:
        known = self._cache.get_page((task.uid, key))
        if known is not None:
            return known
        text = (await self._look_up(task, [key]))[key]
        try:
            _, earlier, own = split_window(read_page(text))
        except ValueError:
            raise ContentLostError(f"{_describe(key)} does not hold messages") from None
        page = Page(earlier, await self._fill(task, own))
        self._cache.put((task.uid, key), page, sum(map(_size_of, page.messages)))
        for message in own:  # the page holds them now
            for part in _references(message):
                self._cache.drop((task.uid, part))
        return page

    async def _fill(self, task: ObjectRef, messages: Sequence[Message]) -> tuple[Message, ...]:
        wanted = [key for message in messages for key in _references(message)]
        texts = await self._look_up(task, wanted)
        return tuple(_fill_message(message, texts) for message in messages)

    async def _look_up(self, task: ObjectRef, keys: Sequence[str]) -> dict[str, str]:
        """The texts of these keys. One object is read once, however many of them it holds."""
        found = {key: text for key in keys if (text := self._cache.get_text((task.uid, key))) is not None}
        missing = {key for key in keys if key not in found}
        if missing:
            objects = {key.rpartition("/")[0] for key in missing}
            for texts in await _gather([self._read_object(task, obj) for obj in objects]):
                wanted = {key: text for key, text in texts.items() if key in missing}
                found |= wanted
                self.learn(task, wanted)
        for key in keys:
            if key not in found:
                raise ContentLostError(f"{_describe(key)} does not hold the text that the conversation refers to")
        return found

    async def _read_object(self, task: ObjectRef, obj: str) -> dict[str, str]:
        kind, _, name = obj.partition("/")
        try:
            async with self._reads:
                if kind == "configmap":
                    raw = await self._kube.request("GET", core_path("configmaps", task.namespace, name))
                else:
                    raw = await self._kube.request("GET", resource_path(TaskRunToolCall, task.namespace, name))
        except NotFoundError:
            raise ContentLostError(f"{_describe(obj)} is gone, and with it a part of the conversation") from None
        if not belongs_to(raw, task.uid):
            raise ContentLostError(f'{_describe(obj)} does not belong to Task "{task.name}"')
        return _read_config_map(name, raw) if kind == "configmap" else _read_call(name, raw)


def _read_config_map(name: str, raw: Mapping[str, Any]) -> dict[str, str]:
    return {stored_key(name, key): text for key, text in (raw.get("data") or {}).items()}


def _read_call(name: str, raw: Mapping[str, Any]) -> dict[str, str]:
    try:
        call = TaskRunToolCall.model_validate(raw)
    except ValidationError:  # it quotes the object, which is no matter for a status
        key = result_key(name)
        raise ContentLostError(f"{_describe(key)} can not be read, and with it a part of the conversation") from None
    texts = {arguments_key(name): call.spec.arguments}
    return {**texts, result_key(name): tool_text(call)} if call.finished else texts


async def _gather(reads: Sequence[Any]) -> list[dict[str, str]]:
    """All of them, or the first error as itself and not in a group."""
    done: list[dict[str, str] | BaseException] = await asyncio.gather(*reads, return_exceptions=True)
    for outcome in done:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in done if not isinstance(outcome, BaseException)]


def _page_key(reference: Message) -> str:
    if reference.content_from is None:
        raise ContentLostError("the conversation names no object for its earlier messages")
    return reference_key(reference.content_from)


def _image_key(image: ImageSource) -> str:
    return stored_key(image.config_map_key_ref.name, image.config_map_key_ref.key)


def _references(message: Message) -> list[str]:
    keys = [reference_key(message.content_from)] if message.content_from is not None else []
    sources = [call.function.arguments_from for call in message.tool_calls or ()]
    return keys + [reference_key(source) for source in sources if source is not None]


def _fill_message(message: Message, texts: Mapping[str, str]) -> Message:
    update: dict[str, object] = {}
    if message.content_from is not None:
        update = {"content": texts[reference_key(message.content_from)], "content_from": None}
    if any(call.function.arguments_from is not None for call in message.tool_calls or ()):
        update["tool_calls"] = [_fill_call(call, texts) for call in message.tool_calls or ()]
    return message.model_copy(update=update) if update else message


def _fill_call(call: MessageToolCall, texts: Mapping[str, str]) -> MessageToolCall:
    source = call.function.arguments_from
    if source is None:
        return call
    whole = {"arguments": texts[reference_key(source)], "arguments_from": None}
    return call.model_copy(update={"function": call.function.model_copy(update=whole)})


def _size_of(message: Message) -> int:
    calls = sum(sys.getsizeof(call.function.arguments) for call in message.tool_calls or ())
    return sys.getsizeof(message.content) + calls + _MESSAGE_OVERHEAD


def _describe(key: str) -> str:
    kind, name = key.split("/")[:2]
    return f'ConfigMap "{name}"' if kind == "configmap" else f'TaskRunToolCall "{name}"'
