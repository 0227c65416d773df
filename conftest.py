"""What holds for the tests of every member."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is; what hangs is ended by the test's own timeout.
settings.register_profile("kubechain", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kubechain")
