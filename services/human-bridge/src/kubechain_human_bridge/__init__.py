"""human-bridge: asks people about tool calls, and takes their answers."""
