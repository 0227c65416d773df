"""The two processes outside the product, each with a log of its own: the tools and the LLM."""
