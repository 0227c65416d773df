"""Which images of a message go out: those whose data was read for a model that takes images. Pure."""

from __future__ import annotations

from kubechain_common.api.v1alpha1.conversation import Message, ShownImage


def shown_images(message: Message) -> list[ShownImage]:
    return [image for image in message.images or () if isinstance(image, ShownImage)]
