"""``kubechain demo``: the tutorial, walked with real kubectl commands on a local cluster of its own.

``tutorial`` is what is applied and ``walk`` what is typed, both pure; ``backend`` and ``page`` choose the LLM and the
web page by what this machine can reach. ``household`` starts and stops what the demo needs, ``walker`` types and tells.
"""
