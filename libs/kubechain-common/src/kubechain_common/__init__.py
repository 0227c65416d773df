"""What every KubeChain service shares.

Layers, from the bottom: ``api`` (the resources) <- ``crdgen`` (the CRDs, from ``api``) <- ``policies`` (who may do
what) <- ``messages`` (what travels) <- ``telemetry`` <- ``kube``, ``messaging`` (one SDK each) <- ``runtime`` (what
turns them into a service) <- ``testing`` (what tests share). ``.importlinter`` holds them to it.
"""

import os
import signal

if os.getpid() == 1:
    # The kernel keeps signals from the first process of a container until that handles them, and a service does so
    # only once it has imported everything. Told to end before that, it would be waited for in vain, for minutes.
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
