"""What every KubeChain service shares.

Layers, from the bottom: ``api`` (the resources) <- ``messages`` (what travels) <- ``kube``, ``messaging``,
``telemetry`` (one SDK each) <- ``runtime`` (what turns them into a service). ``crdgen`` writes the CRDs from ``api``.
"""
