"""The objects of the tutorial, as YAML that a reader can take away and apply.

They are texts and not serialised models on purpose: what the demo shows is what a person would write.
"""

from __future__ import annotations

from kubechain_cli.demo.backend import Backend

HELLO_TASK = """\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: Task
metadata:
  name: hello-world-1
spec:
  agentRef:
    name: my-assistant
  userMessage: "What is the capital of the moon?"
"""


INBOX_CHANNEL = """\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: ContactChannel
metadata:
  name: inbox
spec:
  type: inbox
"""

APPROVED_TASK = "approved-fetch-task"


def build_llm(backend: Backend, base_url: str | None) -> str:
    """The LLM; ``base_url`` points it at another server than the provider's own."""
    parameters = f"    model: {backend.model}\n"
    if base_url:
        parameters += f"    baseUrl: {base_url}\n"
    return f"""\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: LLM
metadata:
  name: {backend.llm}
spec:
  provider: {backend.provider}
  parameters:
{parameters}\
  apiKeyFrom:
    secretKeyRef:
      name: {backend.secret}
      key: {backend.key_name}
"""


def build_agent(llm: str, *, with_fetch: bool) -> str:
    """The Agent, at first without tools."""
    tools = "  mcpServers:\n    - name: fetch\n" if with_fetch else ""
    return f"""\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: Agent
metadata:
  name: my-assistant
spec:
  llmRef:
    name: {llm}
  system: |
    You are a helpful assistant. Your job is to help the user with their tasks.
{tools}"""


def build_fetch_server(*, local_page: bool, approval: str = "") -> str:
    """The MCP server; it refuses addresses of this machine unless it is told to allow them.

    ``approval`` is the ContactChannel through which its calls are approved.
    """
    channel = f"  approvalContactChannel:\n    name: {approval}\n" if approval else ""
    args = '["mcp-server-fetch", "--allow-private-ips"]' if local_page else '["mcp-server-fetch"]'
    return f"""\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: MCPServer
metadata:
  name: fetch
spec:
  transport: "stdio"
  command: "uvx"
  args: {args}
{channel}"""


def build_approved_task(url: str) -> str:
    """The Task whose tool call waits for approval."""
    return build_fetch_task(url).replace("name: fetch-task", f"name: {APPROVED_TASK}")


def build_fetch_task(url: str) -> str:
    """The Task whose answer takes a tool call."""
    return f"""\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: Task
metadata:
  name: fetch-task
spec:
  agentRef:
    name: my-assistant
  userMessage: "what is the data at {url}? "
"""
