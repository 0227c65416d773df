"""Reconciles Task and Agent: decides the next step of every Task."""
