"""The functional core: what the next step of a tool call is, decided from a snapshot, without any I/O."""
