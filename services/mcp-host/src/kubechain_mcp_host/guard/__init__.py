"""What runs in a guard (``stdio_guard.py``): a process of its own per stdio server, made of the standard library only,
and of as little of that as will do, because it starts with every server.
"""
