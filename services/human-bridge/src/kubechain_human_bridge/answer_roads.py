"""The ways in which people answer over HTTP without signing in, put together: links, Slack, webhook callbacks."""

from __future__ import annotations

from collections.abc import Callable

import aiohttp
from aiohttp import web

from kubechain_common.kube.secrets import SecretWatcher
from kubechain_common.runtime.service import ServiceContext
from kubechain_common.telemetry.logging import get_logger
from kubechain_human_bridge.addresses import find_base_url
from kubechain_human_bridge.answers.answers import Answers
from kubechain_human_bridge.audit import Audit
from kubechain_human_bridge.channels.call_token import CallTokens
from kubechain_human_bridge.contactchannels.access import ChannelAccess
from kubechain_human_bridge.links.link_key import SECRET_NAME, LinkKey
from kubechain_human_bridge.links.signed_links import SignedLinks
from kubechain_human_bridge.settings import BridgeSettings
from kubechain_human_bridge.web.callbacks import WebhookCallbacks
from kubechain_human_bridge.web.links import LinkPages
from kubechain_human_bridge.web.roads import AuditedAnswers, NamedChannels
from kubechain_human_bridge.web.slack import SlackInteractions

_PATIENCE = 5.0

_log = get_logger(__name__)


class AnswerRoads:
    """Serve ``routes()``, and run it beside the watcher of Secrets."""

    def __init__(
        self,
        ctx: ServiceContext,
        settings: BridgeSettings,
        session: aiohttp.ClientSession,
        access: ChannelAccess,
        secrets: SecretWatcher,
        channels_known: Callable[[], bool],
    ) -> None:
        self.audit = Audit(ctx.kube, ctx.recorder)
        self.key = LinkKey(ctx.kube, secrets, ctx.settings.namespace)
        self.tokens = CallTokens(lambda: self.key.current)
        self.links = SignedLinks(self.key, find_base_url(settings))
        answers = AuditedAnswers(Answers(ctx.kube), self.audit)
        channels = NamedChannels(access, channels_known)
        self._pages = LinkPages(ctx.kube, self.links, answers, self.audit)
        self._callbacks = WebhookCallbacks(channels, self.tokens, answers, self.audit)
        self._slack = SlackInteractions(ctx.kube, session, channels, self.tokens, answers, self.audit)

    def routes(self) -> list[web.RouteDef]:
        return [*self._pages.routes(), *self._callbacks.routes(), *self._slack.routes()]

    async def wait_ready(self) -> None:
        """Returns once links can be made, or after a while: all else works without."""
        if not await self.key.wait(_PATIENCE):
            _log.warning("there is no key for links yet", secret_name=SECRET_NAME)

    async def run(self) -> None:
        """Keeps the key of the links, until cancelled."""
        await self.key.run()
