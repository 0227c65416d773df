"""What the tutorial promises: each promise with the line that makes it and the behaviour that keeps it.

The promises are those of the KubeChain README from its commands that install the product to its last cleanup command,
and the lines at its top that this walk proves. (`kind delete cluster` is the reader's own cluster, not ours.) A test
claims the ids that it proves with `@pytest.mark.requirement("llm-columns", ...)`; `test_requirements.py` fails while an
id has no test.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Requirement:
    """``seed`` quotes the tutorial (output trimmed to what is promised), ``behaviour`` is what a test has to see."""

    id: str
    seed: str
    behaviour: str


CONCEPTS = (
    Requirement(
        "concept-orchestrator",
        "It supports long-lived outer-loop agents that can process asynchronous execution of both LLM inference and "
        "long-running tool calls.",
        "A Task with an LLM turn, a tool call and a second LLM turn finishes without a client staying connected.",
    ),
    Requirement(
        "concept-durability",
        "It's designed for simplicity and gives strong durability and reliability guarantees for agents that make "
        "asynchronous tool calls",
        "A service that is killed in the middle of a Task comes back and the Task finishes, its tool called once.",
    ),
    Requirement(
        "concept-llm",
        "LLM: Provider + API Keys + Parameters",
        "The LLM object decides which provider is called, with which key and with which parameters.",
    ),
    Requirement(
        "concept-agent",
        "Agent: LLM + System Prompt + Tools",
        "A request to the provider carries the Agent's system prompt and the tools of its MCP servers.",
    ),
    Requirement(
        "concept-tools",
        "Tools: MCP Servers, Humans, Other Agents",
        "The tools of an MCP server are what the LLM is offered and what runs when it calls them.",
    ),
    Requirement(
        "concept-sub-agents",
        "asynchronous tool calls like contacting humans or delegating work to other agents",
        "An Agent's sub-agents are tools: calling one makes a Task of its own, and its output is the tool's result.",
    ),
    Requirement(
        "concept-task",
        "Task: Agent + User Message + Current context window",
        "A Task names an Agent, holds the user's message and keeps the whole conversation in its status.",
    ),
    Requirement(
        "concept-tool-call",
        "TaskRunToolCall: A single tool call that occurred during a Task",
        "Each tool call of a Task is a TaskRunToolCall, owned by the Task, with its arguments and its result.",
    ),
    Requirement(
        "events-watch",
        "kubectl get events --watch",
        "What happens is told as core/v1 Events that kubectl can watch while a Task runs.",
    ),
)

INSTALL = (
    Requirement(
        "install-latest",
        "Deploy the KubeChain operator to your cluster: kubectl apply -f .../release/latest.yaml",
        "One file, applied to a bare cluster, installs the definitions, the policies and the services.",
    ),
    Requirement(
        "install-definitions",
        "Just the CRDs: kubectl apply -f .../release/latest-crds.yaml",
        "Another file installs the custom resource definitions and nothing else.",
    ),
    Requirement(
        "install-version",
        "Install a specific version: kubectl apply -f .../release/v0.1.0.yaml",
        "A file with the version in its name installs the images of that version.",
    ),
)

LLMS = (
    Requirement(
        "llm-manifest",
        "kind: LLM ... provider: openai, parameters.model: gpt-4o, apiKeyFrom.secretKeyRef {name: openai, "
        "key: OPENAI_API_KEY}",
        "The tutorial's LLM manifest is accepted by kubectl apply as it stands.",
    ),
    Requirement(
        "llm-secret",
        "kubectl create secret generic openai --from-literal=OPENAI_API_KEY=$OPENAI_API_KEY --namespace=default",
        "The key is read from the Secret that apiKeyFrom names and sent to the provider.",
    ),
    Requirement(
        "llm-columns",
        "NAME PROVIDER READY STATUS",
        "`kubectl get llm` prints exactly these columns.",
    ),
    Requirement(
        "llm-ready",
        "gpt-4o openai true Ready",
        "An LLM whose key the provider accepts becomes ready with status Ready.",
    ),
    Requirement(
        "llm-columns-wide",
        "NAME PROVIDER READY STATUS DETAIL",
        "`kubectl get llm -o wide` adds the column DETAIL.",
    ),
    Requirement(
        "llm-ready-detail",
        "gpt-4o openai true Ready OpenAI API key validated successfully",
        "The status detail of a ready OpenAI LLM says that its key was validated, in these words.",
    ),
    Requirement(
        "llm-describe",
        "Status: Ready: true, Status: Ready, Status Detail: OpenAI API key validated successfully",
        "`kubectl describe llm` shows the spec with its secret reference, the three status fields and the events.",
    ),
    Requirement(
        "llm-event-validated",
        "Normal ValidationSucceeded 32m (x3 over 136m) llm-controller OpenAI API key validated successfully",
        "A successful validation is a Normal event ValidationSucceeded of llm-controller with the detail's words.",
    ),
    Requirement(
        "event-aggregation",
        "(x3 over 136m)",
        "The same event again raises the count of the one that is there instead of adding another.",
    ),
)

AGENTS = (
    Requirement(
        "agent-manifest",
        "kind: Agent ... llmRef.name: gpt-4o, system: | You are a helpful assistant. ...",
        "The tutorial's Agent manifest is accepted by kubectl apply as it stands.",
    ),
    Requirement(
        "agent-columns",
        "NAME READY STATUS",
        "`kubectl get agent` prints exactly these columns.",
    ),
    Requirement(
        "agent-ready",
        "my-assistant true Ready",
        "An Agent whose LLM is ready becomes ready with status Ready.",
    ),
    Requirement(
        "agent-columns-wide",
        "NAME READY STATUS DETAIL",
        "`kubectl get agent -o wide` adds the column DETAIL.",
    ),
    Requirement(
        "agent-ready-detail",
        "my-assistant true Ready All dependencies validated successfully",
        "The status detail of a ready Agent says that all dependencies were validated, in these words.",
    ),
    Requirement(
        "agent-describe",
        "Spec: Llm Ref: Name: gpt-4o, System: You are a helpful assistant. ... Status: Ready: true, Status: Ready, "
        "Status Detail: All dependencies validated successfully",
        "`kubectl describe agent` shows the LLM reference, the system prompt and the three status fields.",
    ),
    Requirement(
        "agent-event-initializing",
        "Normal Initializing 64m agent-controller Starting validation",
        "The first look at an Agent is a Normal event Initializing of agent-controller.",
    ),
    Requirement(
        "agent-event-validated",
        "Normal ValidationSucceeded 64m (x2 over 64m) agent-controller All dependencies validated successfully",
        "An Agent that becomes ready gets a Normal event ValidationSucceeded of agent-controller.",
    ),
)

TASKS = (
    Requirement(
        "task-manifest",
        'kind: Task ... agentRef.name: my-assistant, userMessage: "What is the capital of the moon?"',
        "The tutorial's Task manifest is accepted by kubectl apply as it stands.",
    ),
    Requirement(
        "task-columns",
        "NAME READY STATUS PHASE PREVIEW OUTPUT",
        "`kubectl get task` prints exactly these columns.",
    ),
    Requirement(
        "task-final-answer",
        "hello-world-1 true Ready FinalAnswer",
        "A Task whose LLM answers without a tool call ends ready, with status Ready, in phase FinalAnswer.",
    ),
    Requirement(
        "task-preview",
        "PREVIEW: What is the capital of the moon?",
        "The preview column shows the user's message.",
    ),
    Requirement(
        "task-output",
        "OUTPUT: The Moon does not have a capital. It is a natural satellite of Earth ...",
        "The output column shows the final answer.",
    ),
    Requirement(
        "task-window-system",
        "Content: You are a helpful assistant. Your job is to help the user with their tasks. Role: system",
        "The first message of the context window is the Agent's system prompt with role system.",
    ),
    Requirement(
        "task-window-user",
        "Content: What is the capital of the moon? Role: user",
        "The second message of the context window is the user's message with role user.",
    ),
    Requirement(
        "task-window-assistant",
        "Content: The Moon does not have a capital, ... Role: assistant",
        "The last message of a finished context window is the answer with role assistant, the same as the output.",
    ),
    Requirement(
        "task-describe-window",
        "You can describe the task to see the full context window",
        "`kubectl describe task` prints the context window in the order of the conversation.",
    ),
    Requirement(
        "task-final-detail",
        "Status Detail: LLM final response received",
        "The status detail of a finished Task says that the final response was received, in these words.",
    ),
    Requirement(
        "task-event-validated",
        "Normal ValidationSucceeded 65s task-controller Task validation succeeded",
        "A Task that starts gets a Normal event ValidationSucceeded of task-controller.",
    ),
    Requirement(
        "task-event-sending",
        "Normal SendingContextWindowToLLM 65s task-controller Sending context window to LLM",
        "Each LLM turn is a Normal event SendingContextWindowToLLM of task-controller.",
    ),
    Requirement(
        "task-event-final-answer",
        "Normal LLMFinalAnswer 64s task-controller LLM response received successfully",
        "The final answer is a Normal event LLMFinalAnswer of task-controller.",
    ),
    Requirement(
        "task-output-jsonpath",
        "kubectl get task -o jsonpath='{.items[*].status.output}'",
        "The jsonpath of the tutorial prints the final answer of the Task and nothing else.",
    ),
    Requirement(
        "task-yaml-list",
        "apiVersion: v1, items: ..., kind: List",
        "`kubectl get task -o yaml` prints a List with the Task's spec and status.",
    ),
    Requirement(
        "task-yaml-window",
        "contextWindow: - content: | You are a helpful assistant. ... role: system",
        "In YAML each message of the window has the keys content and role, and no keys without a value.",
    ),
    Requirement(
        "task-yaml-outcome",
        "phase: FinalAnswer, ready: true, status: Ready, statusDetail: LLM final response received",
        "The status in YAML has phase, ready, status, statusDetail and output under these names.",
    ),
    Requirement(
        "task-span-context",
        "spanContext: spanID: 648ca5bf05d0ec05, traceID: d3fb4171016bcab77d63b02e52e006cd",
        "The status carries the ids of the Task's root span: 16 and 32 lower-case hexadecimal digits.",
    ),
)

MCP_SERVERS = (
    Requirement(
        "mcpserver-manifest",
        'kind: MCPServer ... transport: "stdio", command: "uvx", args: ["mcp-server-fetch"]',
        "The tutorial's MCPServer manifest is accepted as it stands and its command is started.",
    ),
    Requirement(
        "mcpserver-columns",
        "NAME READY STATUS",
        "`kubectl get mcpserver` prints exactly these columns.",
    ),
    Requirement(
        "mcpserver-ready",
        "fetch true Ready",
        "An MCPServer that answers and lists its tools becomes ready with status Ready.",
    ),
    Requirement(
        "mcpserver-connected",
        "Status: Connected: true, Status: Ready",
        "`kubectl describe mcpserver` shows a connected server as Connected: true.",
    ),
    Requirement(
        "mcpserver-detail",
        "Status Detail: Connected successfully with 1 tools",
        "The status detail says how many tools the server has, in these words.",
    ),
    Requirement(
        "mcpserver-tool-description",
        "Tools: Description: Fetches a URL from the internet and optionally extracts its contents as markdown. ... "
        "Name: fetch",
        "Each tool is in the status with its name and the server's whole description.",
    ),
    Requirement(
        "mcpserver-tool-schema",
        "Input Schema: Properties: max_length: Default: 5000, Description: ..., Exclusive Maximum: 1000000, "
        "Exclusive Minimum: 0, Title: Max Length, Type: integer",
        "A tool's input schema is kept whole: types, defaults, bounds, titles, formats and descriptions.",
    ),
    Requirement(
        "mcpserver-tool-required",
        "Required: url, Type: object",
        "The required arguments of a tool are in its input schema.",
    ),
    Requirement(
        "mcpserver-event-connected",
        "Normal Connected 3m14s (x8 over 63m) mcpserver-controller MCP server connected successfully",
        "A connection is a Normal event Connected of mcpserver-controller.",
    ),
)

TOOL_CALLS = (
    Requirement(
        "agent-update-in-place",
        "Then we can update our agent in-place to give it access to the fetch tool: mcpServers: - name: fetch",
        "Applying the Agent again with an MCP server keeps it ready, and new Tasks are offered the server's tools.",
    ),
    Requirement(
        "fetch-task-manifest",
        'name: fetch-task ... userMessage: "what is the data at https://swapi.dev/api/people/1? "',
        "The tutorial's second Task is accepted as it stands and runs on the updated Agent.",
    ),
    Requirement(
        "task-events-command",
        """kubectl get events --field-selector "involvedObject.kind=Task" --sort-by='.lastTimestamp'""",
        "The command of the tutorial prints the Task's events, with type, reason, task/<name> and message.",
    ),
    Requirement(
        "task-event-tool-calls-pending",
        "Normal ToolCallsPending task/fetch-task LLM response received, tool calls pending",
        "An LLM response with tool calls is a Normal event ToolCallsPending of task-controller.",
    ),
    Requirement(
        "task-event-tool-call-created",
        "Normal ToolCallCreated task/fetch-task Created TaskRunToolCall fetch-task-2fe18aa-tc-01",
        "Each new tool call is a Normal event ToolCallCreated that names it.",
    ),
    Requirement(
        "tool-call-name",
        "fetch-task-2fe18aa-tc-01",
        "A tool call is named <task>-<7 hexadecimal digits>-tc-<two digits>.",
    ),
    Requirement(
        "task-event-tools-completed",
        "Normal AllToolCallsCompleted task/fetch-task All tool calls completed",
        "The end of a turn's tool calls is a Normal event AllToolCallsCompleted of task-controller.",
    ),
    Requirement(
        "task-event-sending-again",
        "Normal SendingContextWindowToLLM 109s (x2 over 114s) task-controller Sending context window to LLM",
        "A Task with one round of tools counts two sendings of its context window in one event.",
    ),
    Requirement(
        "tool-call-events",
        "You can also explore the TaskRunToolCall events",
        "A TaskRunToolCall has events of its own, of taskruntoolcall-controller.",
    ),
    Requirement(
        "fetch-task-output",
        "kubectl get task fetch-task -o jsonpath='{.status.output}'",
        "The jsonpath of the tutorial prints the answer that the LLM gave after it read the tool's result.",
    ),
    Requirement(
        "task-window-tool-call",
        "Content: , Role: assistant, Tool Calls: Function: Arguments: {"
        '"url":"https://swapi.dev/api/people/1"}, Name: fetch__fetch',
        "The assistant's message that asks for a tool has empty content and the call's name and arguments.",
    ),
    Requirement(
        "tool-name",
        "Name: fetch__fetch",
        "A tool is offered to the LLM as <server>__<tool>.",
    ),
    Requirement(
        "task-window-tool-call-id",
        "Id: call_sLHvRHebP7YkpLUsAdKiF6u0, Type: function",
        "A tool call keeps the id that the provider gave it and has type function.",
    ),
    Requirement(
        "task-window-tool-result",
        "Content: ... Contents of https://swapi.dev/api/people/1: ... Role: tool, "
        "Tool Call Id: call_sLHvRHebP7YkpLUsAdKiF6u0",
        "The tool's result is the next message, with role tool and the id of the call that it answers.",
    ),
    Requirement(
        "task-window-order",
        "SystemMessage --> UserMessage, OpenAI --> ToolCall-1, ToolResponse-1 --> OpenAI, OpenAI2 --> AssistantMessage",
        "The window of a Task with one tool call reads system, user, assistant, tool, assistant.",
    ),
    Requirement(
        "tool-result-to-llm",
        "ToolResponse-1 --> OpenAI",
        "The second request to the provider carries the tool call and the tool's result.",
    ),
    Requirement(
        "task-describe-events",
        "Events: Type Reason Age From Message ... task-controller",
        "`kubectl describe task fetch-task` prints the events of the run with task-controller as their source.",
    ),
)

ANTHROPIC = (
    Requirement(
        "anthropic-manifest",
        "name: claude-3-5-sonnet ... provider: anthropic, parameters.model: claude-3-5-sonnet-latest, "
        "apiKeyFrom.secretKeyRef {name: anthropic, key: ANTHROPIC_API_KEY}",
        "The tutorial's Anthropic LLM, with a name and a model like these, is accepted as it stands.",
    ),
    Requirement(
        "anthropic-ready",
        "claude-3-5-sonnet anthropic true Ready",
        "`kubectl get llm claude-3-5-sonnet` shows it ready with provider anthropic.",
    ),
    Requirement(
        "anthropic-agent",
        "name: claude ... llmRef.name: claude-3-5-sonnet",
        "An Agent on the Anthropic LLM becomes ready.",
    ),
    Requirement(
        "anthropic-task",
        "claude-task true Ready FinalAnswer I am Claude, an AI assistant created by Anthropic. ...",
        "A Task of that Agent is answered by the Anthropic API, with the model and the key of its LLM.",
    ),
    Requirement(
        "providers-side-by-side",
        "KubeChain also supports using other language models from OpenAI, Anthropic, Vertex, and more.",
        "LLMs of two providers serve Tasks in the same namespace at the same time.",
    ),
)

APPROVAL = (
    Requirement(
        "concept-human-approval",
        "Support for durable task execution across long-running function calls means a simple tool-based interface to "
        "allow an agent to ask a human for input or wait for an approval.",
        "A call that waits for a person is an object in the cluster; nothing but its fields has to survive until then.",
    ),
    Requirement(
        "approval-secret",
        "kubectl create secret generic humanlayer --from-literal=HUMANLAYER_API_KEY=$HUMANLAYER_API_KEY",
        "The HumanLayer key is read from the Secret that the channel's apiKeyFrom names.",
    ),
    Requirement(
        "approval-channel-manifest",
        "kind: ContactChannel ... type: email, apiKeyFrom.secretKeyRef {name: humanlayer, key: HUMANLAYER_API_KEY}, "
        "email: address, subject, contextAboutUser",
        "The tutorial's ContactChannel is accepted by kubectl apply as it stands, comments included.",
    ),
    Requirement(
        "approval-channel-ready",
        "Next, create a ContactChannel resource.",
        "A channel whose key HumanLayer accepts becomes ready, without any message to the person.",
    ),
    Requirement(
        "approval-server-manifest",
        "When an approvalContactChannel is specified, all tools on this MCP server will wait for human approval prior "
        "executing. approvalContactChannel: name: approval-channel",
        "An MCPServer with an approvalContactChannel is accepted and becomes ready.",
    ),
    Requirement(
        "approval-agent-manifest",
        "name: agent-with-fetch ... mcpServers: - name: fetch",
        "The tutorial's Agent on that MCPServer becomes ready.",
    ),
    Requirement(
        "approval-task-manifest",
        'name: approved-fetch-task ... userMessage: "Write me a haiku about the character found at '
        'https://swapi.dev/api/people/2?"',
        "The tutorial's Task runs until its tool call waits for approval.",
    ),
    Requirement(
        "approval-call-columns",
        "NAME PHASE TASKRUN TOOL: approved-fetch-task-1-tc-01 Pending approved-fetch-task-1 fetch__fetch",
        "`kubectl get taskruntoolcall` shows the waiting call as Pending, with its Task and its tool.",
    ),
    Requirement(
        "approval-call-describe",
        "kubectl describe taskruntoolcall approved-fetch-task-1-tc-01: Name, Namespace, Labels, ... Spec: Arguments, "
        "Task Run Ref, Tool Call Id, Tool Ref: fetch__fetch",
        "`kubectl describe` of the waiting call shows these fields in this order.",
    ),
    Requirement(
        "approval-call-label",
        "Labels: kubechain.humanlayer.dev/taskruntoolcall=approved-fetch-task-1",
        "The call is labelled with its Task's name.",
    ),
    Requirement(
        "approval-call-owner",
        "Owner References: Controller: true, Kind: Task, Name: approved-fetch-task-1",
        "The call is owned by its Task.",
    ),
    Requirement(
        "approval-external-id",
        "Status: External Call ID: ec-3257d3e",
        "The waiting call shows the id that its request has outside, which begins with ec-.",
    ),
    Requirement(
        "approval-status",
        "Phase: Pending, Start Time: ..., Status: AwaitingHumanApproval",
        "A call that waits for approval is in phase Pending with status AwaitingHumanApproval.",
    ),
    Requirement(
        "approval-detail",
        "Status Detail: Waiting for human approval via contact channel approval-channel",
        "The status detail names the channel, in these words.",
    ),
    Requirement(
        "approval-event-awaiting",
        "Normal AwaitingHumanApproval taskruntoolcall-controller Tool execution requires approval via contact channel "
        "approval-channel",
        "The wait is a Normal event AwaitingHumanApproval of taskruntoolcall-controller.",
    ),
    Requirement(
        "approval-event-sent",
        "Normal HumanLayerRequestSent taskruntoolcall-controller HumanLayer request sent",
        "The request to HumanLayer is a Normal event HumanLayerRequestSent of taskruntoolcall-controller.",
    ),
    Requirement(
        "approval-request",
        "the email you should have received via HumanLayer requesting approval to run our fetch tool",
        "HumanLayer is asked once, with the tool, its arguments, the address, the subject and the context.",
    ),
    Requirement(
        "approval-no-output-yet",
        "at this point our task has not completed. If we run kubectl get task approved-fetch-task no OUTPUT has yet "
        "been returned.",
        "`kubectl get task` shows no OUTPUT while the call waits.",
    ),
    Requirement(
        "approval-approved",
        "Go ahead and approve the email ... kubectl get taskruntoolcall ... should show our tool has been called.",
        "An approval at HumanLayer runs the tool, within seconds.",
    ),
    Requirement(
        "approval-task-describe",
        "kubectl describe task approved-fetch-task: Status: Context Window: ... Output: Golden C-3PO, ... Phase: "
        "FinalAnswer, Ready: true, Status Detail: LLM final response received",
        "`kubectl describe` of the finished Task shows the whole conversation and the haiku.",
    ),
    Requirement(
        "approval-task-events",
        "ValidationSucceeded, ToolCallsPending, ToolCallCreated, SendingContextWindowToLLM, AllToolCallsCompleted, "
        "LLMFinalAnswer of task-controller",
        "The Task has these events, with the tutorial's messages.",
    ),
    Requirement(
        "approval-rejected",
        "request human approval and input across Slack, email, and more",
        "A rejection at HumanLayer keeps the tool from running, and the model reads the person's comment.",
    ),
    Requirement(
        "approval-by-kubectl",
        "Note: Directly approving tool calls with kubectl ... is planned but not yet supported.",
        "A `kubectl patch` of spec.decision approves a waiting call, in the name of the user.",
    ),
    Requirement(
        "approval-by-cli",
        "Note: Directly approving tool calls with ... a kubechain CLI is planned but not yet supported.",
        "`kubechain inbox` shows the waiting call and `kubechain approve` approves it, in the name of the user.",
    ),
)

CLEANUP = (
    Requirement(
        "cleanup-calls",
        "kubectl delete taskruntoolcall --all",
        "Tool calls are deleted, whatever state they are in.",
    ),
    Requirement("cleanup-tasks", "kubectl delete task --all", "Tasks are deleted, and all that they own with them."),
    Requirement("cleanup-agents", "kubectl delete agent --all", "Agents are deleted."),
    Requirement("cleanup-servers", "kubectl delete mcpserver --all", "MCPServers are deleted."),
    Requirement("cleanup-llms", "kubectl delete llm --all", "LLMs are deleted."),
    Requirement(
        "cleanup-secrets",
        "kubectl delete secret openai; kubectl delete secret anthropic; kubectl delete secret humanlayer",
        "Nothing holds on to the Secrets.",
    ),
    Requirement(
        "cleanup-definitions",
        "Remove the operator, resources and custom resource definitions: kubectl delete -f .../release/latest.yaml",
        "Deleting what was installed removes the custom resource definitions, their objects, and the policies.",
    ),
)

REQUIREMENTS: tuple[Requirement, ...] = (
    *CONCEPTS,
    *INSTALL,
    *LLMS,
    *AGENTS,
    *TASKS,
    *MCP_SERVERS,
    *TOOL_CALLS,
    *ANTHROPIC,
    *APPROVAL,
    *CLEANUP,
)
