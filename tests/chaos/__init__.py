"""The whole product under a run of deaths and outages, judged by witnesses of its own.

Read in this order: ``scenario`` (what is started, and what is done to it), ``deeds`` (the deeds themselves), ``round``
(one scenario from start to verdict), ``witness`` and ``history`` (who saw what), ``verdict`` (what must be true of it),
``report`` (counts of all rounds, and docs/reliability.md).
"""
