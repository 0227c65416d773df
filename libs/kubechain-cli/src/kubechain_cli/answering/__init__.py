"""What waits for a person, and how that person answers from a terminal.

``waiting`` is what a call asks, ``rendering`` how that looks, ``changes`` what is news to a watcher (all pure);
``finding`` reads it from the cluster. ``answer`` writes the answer as the user whom the API server takes us for, and
``session`` is what the commands have in common.
"""
