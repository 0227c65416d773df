"""Brings the streams and buckets of the topology table into being, and notices when they were lost.

A stream that is missing is created; who finds it missing does not matter, for creating twice is harmless. A stream
whose creation time is not the one we knew was lost with everything in it and made anew, by us or by somebody else:
whoever remembers what it published has to forget it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import nats.js.errors
from nats.js import api

from kubechain_common.messages.topology import (
    CLAIMS_BUCKET,
    CLAIMS_STREAM,
    SHARED_BUCKET,
    STARTED_CALLS_BUCKET,
    STREAMS,
    StreamSpec,
)
from kubechain_common.messaging import errors
from kubechain_common.telemetry.logging import get_logger

DUPLICATE_WINDOW = 120.0
BUCKET_TTL = 7 * 24 * 3600.0
"""Seconds after which a started call or an orphaned payload is dropped."""
SHARED_TTL = 24 * 3600.0
"""Seconds after which an entry that nobody writes any more is dropped."""

_log = get_logger(__name__)


def _work_queue(spec: StreamSpec) -> Any:
    return api.StreamConfig(
        name=spec.name,
        subjects=list(spec.subjects),
        retention=api.RetentionPolicy.WORK_QUEUE,
        storage=api.StorageType.FILE,
        duplicate_window=DUPLICATE_WINDOW,
        # A full stream refuses, which its publisher hears; the default drops the oldest work without a word.
        discard=api.DiscardPolicy.NEW,
    )


def _key_value(bucket: str, ttl: float) -> Any:
    # By the conventions of NATS, so that `nats kv` can read it.
    return api.StreamConfig(
        name=f"KV_{bucket}",
        subjects=[f"$KV.{bucket}.>"],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        duplicate_window=DUPLICATE_WINDOW,
        max_age=ttl,
        max_msgs_per_subject=1,
        discard=api.DiscardPolicy.NEW,
        allow_rollup_hdrs=True,
        deny_delete=True,
        allow_direct=True,
    )


def _claims() -> Any:
    # An object store by the conventions of NATS, so that `nats object` can read it.
    return api.StreamConfig(
        name=CLAIMS_STREAM,
        subjects=[f"$O.{CLAIMS_BUCKET}.C.>", f"$O.{CLAIMS_BUCKET}.M.>"],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        duplicate_window=DUPLICATE_WINDOW,
        max_age=BUCKET_TTL,
        discard=api.DiscardPolicy.NEW,
        allow_rollup_hdrs=True,
        allow_direct=True,
    )


def _all_configs() -> list[Any]:
    buckets = (_key_value(STARTED_CALLS_BUCKET, BUCKET_TTL), _key_value(SHARED_BUCKET, SHARED_TTL), _claims())
    return [*map(_work_queue, STREAMS), *buckets]


class Streams:
    """The streams on the server that we are connected to: those of ``names``, which are the ones that we use.

    ``replicas`` is how many servers keep each stream: one that fewer keep is raised to it, one that more keep stays.
    """

    def __init__(self, names: Sequence[str], replicas: int) -> None:
        self._configs = [config for config in _all_configs() if config.name in names]
        for config in self._configs:
            config.num_replicas = replicas
        self.names = frozenset(config.name for config in self._configs)
        self._created: dict[str, datetime] = {}
        self._lost: set[str] = set()

    async def ensure(self, js: Any) -> frozenset[str]:
        """Create what is missing, and say which of those that we knew have been lost since.

        Raises the client's errors, BusUnavailableError while there are too few servers for a stream, and TopologyError
        when one exists with a configuration that cannot become ours.
        """
        for config in self._configs:
            info = await _ensure_stream(js, config)
            known = self._created.get(config.name)
            self._created[config.name] = info.created
            if known is not None and known != info.created:
                _log.warning("stream was lost and made anew", stream=config.name)
                self._lost.add(config.name)
        # Told only once all are there: what was noticed before a failure halfway is not forgotten.
        lost, self._lost = frozenset(self._lost), set()
        return lost

    async def has_dropped(self, js: Any, stream: str, sequence: int) -> bool:
        """Is the message gone from the stream, and the stream still the one we know? Raises the client's errors."""
        try:
            await js.get_msg(stream, sequence)
        except nats.js.errors.NotFoundError as error:
            if errors.err_code(error) != errors.MESSAGE_NOT_FOUND:
                return False  # the stream is not there
        else:
            return False
        # In this order: a stream that still is the one we know was so when it had no such message.
        info = await js.stream_info(stream)
        return bool(info.created == self._created.get(stream))


async def _ensure_stream(js: Any, config: Any) -> Any:
    try:
        return await js.add_stream(config)
    except nats.js.errors.BadRequestError as error:
        code = errors.err_code(error)
        if code == errors.NO_PEERS:  # they may be on their way: servers do not all start at once
            raise errors.translate(error, f"making the stream {config.name}") from error
        if code != errors.STREAM_CONFIG_DIFFERS:
            raise errors.TopologyError(f"The stream {config.name} cannot be made: {error.description}.") from error
    return await _adapt_stream(js, config)


async def _adapt_stream(js: Any, wanted: Any) -> Any:
    """Change only what our messages depend on: limits, and more replicas than ours, are the operator's to choose."""
    info = await js.stream_info(wanted.name)
    current = info.config
    if current.retention != wanted.retention:
        raise errors.TopologyError(
            f"The stream {wanted.name} exists with retention {current.retention} instead of {wanted.retention}: "
            "it was not made by KubeChain. Delete it, or use another NATS account."
        )
    replicas = max(current.num_replicas or 1, wanted.num_replicas)
    if set(current.subjects) == set(wanted.subjects) and (
        (current.duplicate_window, current.discard, current.num_replicas or 1)
        == (wanted.duplicate_window, wanted.discard, replicas)
    ):
        return info
    current.subjects, current.duplicate_window = wanted.subjects, wanted.duplicate_window
    current.discard, current.num_replicas = wanted.discard, replicas
    return await js.update_stream(current)
