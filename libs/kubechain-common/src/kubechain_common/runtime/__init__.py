"""How a service lives: settings from the environment, connections, health endpoint, signals, orderly end."""

from kubechain_common.runtime.clock import now
from kubechain_common.runtime.health import Health
from kubechain_common.runtime.service import ServiceContext, run_service
from kubechain_common.runtime.settings import ServiceSettings

__all__ = ["Health", "ServiceContext", "ServiceSettings", "now", "run_service"]
