"""Logs, traces and metrics: what a service tells about itself. Knows nothing of Kubernetes or NATS."""
