"""The work queue between the services: JetStream behind four nouns. The only package that imports nats.

``Bus`` publishes units of work once and keeps the streams alive; ``Consumer`` runs a handler per message; ``Delivery``
is what it gets; ``StartedCalls`` remembers which tool calls have begun. Nothing here is the record of anything: all of
it may be lost and is made again.
"""

from kubechain_common.messaging.bus import Bus, PublishOutcome
from kubechain_common.messaging.consumer import Consumer
from kubechain_common.messaging.delivery import Delivery, Poison
from kubechain_common.messaging.errors import (
    BusClosedError,
    BusFullError,
    BusUnavailableError,
    MessagingError,
    PayloadLostError,
    PoisonMessage,
    PublishRefusedError,
    RetryLater,
    TopologyError,
)
from kubechain_common.messaging.live import Listener, Live
from kubechain_common.messaging.room import Room
from kubechain_common.messaging.started_calls import Claim, StartedCalls

__all__ = [
    "Bus",
    "BusClosedError",
    "BusFullError",
    "BusUnavailableError",
    "Claim",
    "Consumer",
    "Delivery",
    "Listener",
    "Live",
    "MessagingError",
    "PayloadLostError",
    "Poison",
    "PoisonMessage",
    "PublishOutcome",
    "PublishRefusedError",
    "RetryLater",
    "Room",
    "StartedCalls",
    "TopologyError",
]
