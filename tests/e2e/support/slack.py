"""A Slack for a test on the whole product: where its API is, and people who use its buttons."""

from __future__ import annotations

from typing import Any

from tests.e2e.support.background import BackgroundLoop

from kubechain_common.testing.slack_server import Interaction, SlackServer


class SlackWorkspace:
    """``base_url`` is for ``slack.baseUrl``; answers are posted to ``interactions_url``, as Slack does."""

    def __init__(self, loop: BackgroundLoop, interactions_url: str) -> None:
        self._loop = loop
        self._interactions_url = interactions_url
        self.server = SlackServer()
        self.server.origin = loop.serve(self.server.build_app())

    @property
    def base_url(self) -> str:
        return self.server.base_url

    def click(self, message: dict[str, Any], action_id: str, user: str) -> tuple[int, str]:
        """Somebody uses a button of a message; status and text of our answer."""
        return self._deliver(self.server.build_click(message, action_id, user))

    def submit(self, form: dict[str, Any], text: str, user: str) -> tuple[int, str]:
        """Somebody sends a form that a button has opened."""
        return self._deliver(self.server.build_submission(form, text, user))

    def _deliver(self, interaction: Interaction) -> tuple[int, str]:
        return self._loop.run(self.server.deliver(self._interactions_url, interaction))
