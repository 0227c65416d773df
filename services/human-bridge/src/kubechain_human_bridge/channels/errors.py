"""What can go wrong between us and a person.

ChannelError                 a sentence for the user, never with a secret in it
+- ChannelUnavailableError   retryable: the other side is away, or asks us to wait
+- ChannelRefusedError       not cured by trying again soon: a wrong key, an unknown address
   +- ChannelNotUsableError  it cannot be used as it is configured (contactchannels)
   +- SlackError             Slack said no, with a word for it (slack_api)

What is no such error goes through a channel as it is: KeyUnknownError (link_key), a KubeError, is one for the worker.
"""

from __future__ import annotations


class ChannelError(Exception):
    """``retry_after`` is what the other side asks for, in seconds."""

    retryable = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ChannelUnavailableError(ChannelError):
    retryable = True


class ChannelRefusedError(ChannelError):
    pass
