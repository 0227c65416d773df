"""A connection to an MCP server over all its lives: dialling, listing tools, calling them."""
