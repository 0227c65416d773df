"""Reconciles MCPServer: runs MCP servers and executes tool calls."""
