"""Reconciles LLM and calls the LLM providers."""
