"""Measures the running product against the budgets of the design: ``make bench``."""
