"""The tutorial's own YAML and its own output, as its reader sees them.

The YAML is verbatim but for `parameters.baseUrl`, which points an LLM at the scripted stand-in, and for the page that
is fetched: a test needs no internet. Output keeps the lines that promise something; `…` stands for what differs from
run to run.
"""

from __future__ import annotations

LLM = """\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: LLM
metadata:
  name: gpt-4o
spec:
  provider: openai
  parameters:
    model: gpt-4o
    baseUrl: {base_url}
  apiKeyFrom:
    secretKeyRef:
      name: openai
      key: OPENAI_API_KEY
"""

AGENT = """\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: Agent
metadata:
  name: my-assistant
spec:
  llmRef:
    name: gpt-4o
  system: |
    You are a helpful assistant. Your job is to help the user with their tasks.
"""

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

FETCH_SERVER = """\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: MCPServer
metadata:
  name: fetch
spec:
  transport: "stdio"
  command: "uvx"
  args: ["mcp-server-fetch"]
"""

# The server refuses addresses of this machine unless it is told otherwise, and the page of the test is one.
FETCH_SERVER_FOR_LOCAL_PAGE = FETCH_SERVER.replace('"mcp-server-fetch"', '"mcp-server-fetch", "--allow-private-ips"')

AGENT_WITH_FETCH = f"""\
{AGENT}\
  mcpServers:
    - name: fetch
"""

FETCH_TASK = """\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: Task
metadata:
  name: fetch-task
spec:
  agentRef:
    name: my-assistant
  userMessage: "what is the data at {url}? "
"""

CLAUDE_LLM = """\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: LLM
metadata:
  name: claude-3-5-sonnet
spec:
  provider: anthropic
  parameters:
    model: claude-3-5-sonnet-latest
    baseUrl: {base_url}
  apiKeyFrom:
    secretKeyRef:
      name: anthropic
      key: ANTHROPIC_API_KEY
"""

CLAUDE_AGENT = """\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: Agent
metadata:
  name: claude
spec:
  llmRef:
    name: claude-3-5-sonnet
  system: |
    You are a helpful assistant. Your job is to help the user with their tasks.
"""

CLAUDE_TASK = """\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: Task
metadata:
  name: claude-task
spec:
  agentRef:
    name: claude
  userMessage: "What is your name and primary directive?"
"""

LLM_DESCRIBED = """\
Name: gpt-4o
Namespace: default
Labels: <none>
Annotations: <none>
API Version: kubechain.humanlayer.dev/v1alpha1
Kind: LLM
Metadata:
Creation Timestamp: …
Generation: …
Resource Version: …
UID: …
Spec:
API Key From:
Secret Key Ref:
Key: OPENAI_API_KEY
Name: openai
Provider: openai
Status:
Ready: true
Status: Ready
Status Detail: OpenAI API key validated successfully
Events:
Type Reason Age From Message
---- ------ ---- ---- -------
"""

AGENT_DESCRIBED = """\
Name: my-assistant
Namespace: default
Labels: <none>
Annotations: <none>
API Version: kubechain.humanlayer.dev/v1alpha1
Kind: Agent
Metadata:
Creation Timestamp: …
Generation: 1
Resource Version: …
UID: …
Spec:
Llm Ref:
Name: gpt-4o
System: You are a helpful assistant. Your job is to help the user with their tasks.
Status:
Ready: true
Status: Ready
Status Detail: All dependencies validated successfully
Events:
"""

HELLO_DESCRIBED = """\
Status:
Context Window:
Content: You are a helpful assistant. Your job is to help the user with their tasks.
Role: system
Content: What is the capital of the moon?
Role: user
Content: …The Moon does not have a capital…
Role: assistant
Output: …The Moon does not have a capital…
Phase: FinalAnswer
Ready: true
Span Context:
Span ID: …
Trace ID: …
Status: Ready
Status Detail: LLM final response received
Events:
"""

FETCH_SERVER_DESCRIBED = """\
Status:
Connected: true
Status: Ready
Status Detail: Connected successfully with 1 tools
Tools:
Description: Fetches a URL from the internet and optionally extracts its contents as markdown.
Although originally you did not have internet access, and were advised to refuse and tell the user this, this tool …
Input Schema:
Properties:
max_length:
Default: 5000
Description: Maximum number of characters to return.
Title: Max Length
Type: integer
Raw:
Default: false
Description: Get the actual HTML content …
Title: Raw
Type: boolean
start_index:
Default: 0
Description: On return output starting at this character index, useful if a previous fetch was truncated and …
Minimum: 0
Title: Start Index
Type: integer
URL:
Description: URL to fetch
Format: uri
Min Length: 1
Title: Url
Type: string
Required:
url
Type: object
Name: fetch
Events:
"""

FETCH_TASK_DESCRIBED = """\
Status:
Context Window:
Content: You are a helpful assistant. Your job is to help the user with their tasks.
Role: system
Content: what is the data at {url}?
Role: user
Content:
Role: assistant
Tool Calls:
Function:
Arguments: {{"url":"{url}"}}
Name: fetch__fetch
Id: call_…
Type: function
Content: …
Contents of {url}:
Role: tool
Tool Call Id: call_…
Content: …
The URL {url} contains the following data about a Star Wars character:
- **Name**: Luke Skywalker
- **Height**: 172
Role: assistant
Output: …
Phase: FinalAnswer
Status Detail: LLM final response received
Events:
"""

CALL_DESCRIBED = """\
Name: {name}
Namespace: default
…kubechain.humanlayer.dev/taskruntoolcall=fetch-task
Annotations: <none>
API Version: kubechain.humanlayer.dev/v1alpha1
Kind: TaskRunToolCall
Metadata:
Creation Timestamp: …
Generation: 1
Owner References:
API Version: kubechain.humanlayer.dev/v1alpha1
Controller: true
Kind: Task
Name: fetch-task
UID: {owner}
Resource Version: …
UID: …
Spec:
Arguments: {{"url":"{url}"}}
Task Run Ref:
Name: fetch-task
Tool Call Id: call_…
Tool Ref:
Name: fetch__fetch
Status:
Phase: Succeeded
Start Time: …
Status: Succeeded
Status Detail: …
Events:
"""

# --- human approval: once the API key of HumanLayer is in Secret humanlayer ---

APPROVAL_CHANNEL = """\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: ContactChannel
metadata:
  name: approval-channel
spec:
  type: email # Replace with "slack" if using Slack
  apiKeyFrom:
    secretKeyRef:
      name: humanlayer
      key: HUMANLAYER_API_KEY
  email:
    address: "approver@example.com" # Replace with actual target email address
    subject: "Approval Request from Kubechain"
    contextAboutUser: "Primary approver for web fetch operations"
"""

APPROVED_FETCH_SERVER = f"""\
{FETCH_SERVER_FOR_LOCAL_PAGE}\
  # When an approvalContactChannel is specified,
  # all tools on this MCP server will wait for human approval prior executing.
  approvalContactChannel:
    name: approval-channel
"""

APPROVED_AGENT = """\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: Agent
metadata:
  name: agent-with-fetch
spec:
  llmRef:
    name: gpt-4o
  system: |
    You are a helpful assistant. Your job is to help the user with their tasks.
  mcpServers:
    - name: fetch
"""

APPROVED_TASK = """\
apiVersion: kubechain.humanlayer.dev/v1alpha1
kind: Task
metadata:
  name: approved-fetch-task
spec:
  agentRef:
    name: agent-with-fetch
  userMessage: "Write me a haiku about the character found at {url}?"
"""

WAITING_CALL_DESCRIBED = """\
Name: {name}
Namespace: default
…kubechain.humanlayer.dev/taskruntoolcall=approved-fetch-task
Annotations: <none>
API Version: kubechain.humanlayer.dev/v1alpha1
Kind: TaskRunToolCall
Metadata:
Creation Timestamp: …
Generation: 1
Owner References:
API Version: kubechain.humanlayer.dev/v1alpha1
Controller: true
Kind: Task
Name: approved-fetch-task
UID: {owner}
Resource Version: …
UID: …
Spec:
Arguments: {{"url":"{url}"}}
Task Run Ref:
Name: approved-fetch-task
Tool Call Id: call_…
Tool Ref:
Name: fetch__fetch
Status:
External Call ID: ec-…
Phase: Pending
Start Time: …
Status: AwaitingHumanApproval
Status Detail: Waiting for human approval via contact channel approval-channel
Events:
"""

APPROVED_TASK_DESCRIBED = """\
Name: approved-fetch-task
Kind: Task
Metadata:
Creation Timestamp: …
UID: …
Spec:
Status:
Context Window:
Content: You are a helpful assistant. Your job is to help the user with their tasks.
Role: system
Content: Write me a haiku about the character found at {url}?
Role: user
Content:
Role: assistant
Tool Calls:
Function:
Arguments: {{"url":"{url}"}}
Name: fetch__fetch
Id: call_…
Type: function
Content: …Content type application/json… cannot be simplified to markdown, but here is the raw content:
Contents of {url}:
{{"name":"C-3PO",…}}
Role: tool
Tool Call Id: call_…
Content: …
Golden C-3PO,
Speaks in many languages,
Droid with gentle heart.
Role: assistant
Output: …
Golden C-3PO,
Speaks in many languages,
Droid with gentle heart.
Phase: FinalAnswer
Ready: true
Span Context:
Span ID: …
Trace ID: …
Status: Ready
Status Detail: LLM final response received
Events:
"""
