"""What an MCPServer's spec and its Secrets come to. Pure."""
