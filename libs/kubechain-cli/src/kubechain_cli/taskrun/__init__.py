"""Following one Task from a terminal: what ``kubechain run`` is made of.

``steps`` says what happened between two sights of an object, ``terminal`` how that is printed, ``naming`` what a Task
of ours is called: pure functions all. ``following`` watches the Task and its tool calls by way of ``watching``,
``errors`` is what can go wrong.
"""
