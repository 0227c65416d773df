"""A stdio server as mcp-host sees it: how it is started, isolated and read. The process beside it is in ``guard``."""
