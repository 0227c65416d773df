"""What every KubeChain service shares.

Layers, from the bottom: ``api`` (the resources) <- ``messages`` (what travels) <- ``kube``, ``messaging``,
``telemetry`` (one SDK each) <- ``runtime`` (what turns them into a service). ``crdgen`` writes the CRDs from ``api``.
"""

import os
import signal

if os.getpid() == 1:
    # The kernel keeps signals from the first process of a container until that handles them, and a service does so
    # only once it has imported everything. Told to end before that, it would be waited for in vain, for minutes.
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
