"""The LLM providers: the only place that knows their SDKs, and that knows nothing of Kubernetes or the bus."""
