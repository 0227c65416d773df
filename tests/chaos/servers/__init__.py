"""The three processes outside the product, each with a log of its own: the tools, the LLM and the people."""
