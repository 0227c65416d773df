"""The images that a tool returned: kept in ConfigMaps of the Task, which the call's status names (pure)."""

from __future__ import annotations

from kubechain_common.api.names import text_name
from kubechain_common.api.stored_text import IMAGE_KEY, StoredText, find_task
from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.conversation import ConfigMapKeyRef, ImageSource
from kubechain_common.messages import ToolResult
from kubechain_common.messages.tool import ToolImage


def keep_images(call: TaskRunToolCall, result: ToolResult) -> tuple[list[ImageSource], tuple[StoredText, ...]]:
    """What the call's status says of the images, and what has to be stored before. A call without a Task keeps none."""
    owner = find_task(call)
    if owner is None:
        return [], ()
    stored = [
        StoredText(text_name(owner.name, owner.uid, image.data), IMAGE_KEY, image.data) for image in result.images
    ]
    sources = [_build_source(image, text) for image, text in zip(result.images, stored, strict=True)]
    return sources, tuple(dict.fromkeys(stored))


def _build_source(image: ToolImage, text: StoredText) -> ImageSource:
    return ImageSource(mime_type=image.mime_type, config_map_key_ref=ConfigMapKeyRef(name=text.name, key=text.key))


def drop_images(result: ToolResult, why: str) -> ToolResult:
    """The result without its images, which could not be kept: the model is told."""
    return result.model_copy(update={"images": [], "content": f"{result.content}\n[images were lost: {why}]"})
