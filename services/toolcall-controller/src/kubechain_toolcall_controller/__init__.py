"""Reconciles TaskRunToolCall: routes each tool call to the service that runs it."""
