"""The functional core: what a Task's or an Agent's next step is, decided from a snapshot, without any I/O.

``task_decision`` and ``agent_decision`` return plans; the reconcilers one level up carry them out.
"""
