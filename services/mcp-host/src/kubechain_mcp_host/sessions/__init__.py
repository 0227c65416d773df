"""Servers whose calls belong together: which replica has a session, and how calls get there."""
