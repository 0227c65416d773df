"""An LLM and its Secret: what is wrong with them, which parameters reach the provider, and its client."""
