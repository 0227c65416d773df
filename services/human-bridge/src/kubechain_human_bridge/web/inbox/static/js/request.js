// One request: opened, shown whole, closed, and what became of it.

import { actions, editor, syncEditor } from "./answer.js";
import { codeBlock, pretty, reveal } from "./code.js";
import { announce, banner, el, markDeadline, time } from "./elements.js";
import { renderList } from "./list.js";
import { $, api, isPhone, openFromAddress, pathOf, sameCall, state } from "./page.js";
import { handleTrouble, takeDraft } from "./session.js";

export function followAddress() {
  const wanted = openFromAddress();
  if (wanted && state.user && !sameCall(wanted, state.open)) openRequest(wanted, { focus: true });
}

// Somebody else, or nobody any more: the request stays in view, with what became of it in place of the buttons.
export async function refreshOpen() {
  const open = state.open;
  try {
    const request = await api(pathOf(open));
    if (!sameCall(open, state.open)) return;
    if (request.waiting) return; // nothing became of it, and an answer may be being written
    state.request = request;
  } catch (error) {
    if (error.status === 401) return handleTrouble(error);
    if (!sameCall(open, state.open)) return;
    if (error.status !== 404) return banner(error.message);
    state.request = { ...state.request, waiting: false, gone: true };
  }
  // Only now: an answer of our own may have moved the focus on to the next request meanwhile.
  const held = document.activeElement;
  const inside = $("detail").contains(held);
  renderDetail();
  announce(settledText(state.request));
  if (inside) ($(held.id) || $("detail")).focus();
}

export function settledText(request) {
  const answer = request.answer;
  if (request.gone) return "This request does not exist any more.";
  if (!answer) return request.ended || `It waits no longer: ${request.statusDetail || "it has ended"}.`;
  const verb = answer.approved === undefined ? "Answered" : answer.approved ? "Approved" : "Rejected";
  const by = answer.by === state.user ? "you" : answer.by || "somebody";
  return `${verb} by ${by}${answer.via ? ` (${answer.via})` : ""}`;
}

export async function openRequest(item, { focus }) {
  state.open = { namespace: item.namespace, name: item.name };
  state.edited = null;
  $("inbox").dataset.open = "true";
  history.replaceState(null, "", `#${item.namespace}/${item.name}`);
  renderList();
  try {
    const request = await api(pathOf(item));
    if (!sameCall(state.open, request)) return;
    state.request = request;
    renderDetail();
    takeDraft(request);
  } catch (error) {
    if (error.status === 401) return handleTrouble(error);
    if (!sameCall(state.open, item)) return;
    state.request = null;
    renderProblem(error.message);
  }
  if (focus) {
    $("detail").scrollTop = 0;
    if (isPhone()) scrollTo(0, 0);
    $("detail").focus({ preventScroll: true });
  }
}

export function closeRequest() {
  const key = state.open && `${state.open.namespace}/${state.open.name}`;
  $("inbox").dataset.open = "false";
  if (isPhone()) {
    state.open = state.request = null;
    history.replaceState(null, "", "/");
    renderList();
    renderDetail();
  }
  const buttons = [...$("list").querySelectorAll("button")];
  (buttons.find((button) => button.dataset.key === key) || buttons[0] || $(`tab-${state.tab}`)).focus();
}

const backButton = () => el("button", { type: "button", class: "quiet back", id: "back", text: "‹ All requests", onclick: closeRequest });

function renderProblem(text) {
  $("detail").replaceChildren(
    el("div", { class: "sheet" }, backButton(), el("div", { class: "note bad", role: "alert" }, el("strong", { text }))),
  );
}

export function renderDetail() {
  const request = state.request;
  if (!request) {
    const text = state.total ? "Choose a request from the list." : "All quiet. You may leave this page open.";
    $("detail").replaceChildren(el("div", { class: "sheet blank" }, el("p", { text })));
    return;
  }
  const question = request.kind === "question";
  const who = request.agent || "An agent";
  $("detail").replaceChildren(
    el(
      "article",
      { class: "sheet", "aria-labelledby": "request-title" },
      backButton(),
      el(
        "div",
        { class: "title" },
        el("p", { class: "what", text: question ? "Question" : `${who} wants to run` }),
        el("h2", { id: "request-title", text: question ? `${who} asks you` : request.tool }),
      ),
      facts(request),
      request.waiting ? null : settled(request),
      question ? el("p", { class: "question", id: "question", text: reveal(request.question) }) : argumentsBlock(request),
      request.waiting ? (request.mayDecide ? actions(request) : forbidden(request)) : null,
      conversation(request.conversation),
      steps(request.history),
    ),
  );
}

function facts(request) {
  const fact = (name, value) => (value ? el("div", {}, el("dt", { text: name }), el("dd", {}, value)) : null);
  const deadline = request.waiting && request.deadline ? time(request.deadline) : null;
  if (deadline) {
    deadline.dataset.deadline = "";
    markDeadline(deadline);
  }
  return el(
    "dl",
    { class: "facts" },
    fact("Agent", request.agent),
    fact("Task", request.task),
    fact("Namespace", request.namespace),
    fact("Channel", request.channel),
    fact("Asked", time(request.askedAt)),
    deadline && fact(request.then === "fails" ? "Gives up" : `Unanswered: ${request.then}`, deadline),
  );
}

function argumentsBlock(request) {
  const answer = request.answer;
  if (answer && answer.arguments !== null && answer.arguments !== undefined) {
    return el(
      "div",
      { class: "versions" },
      el("section", { class: "block" }, el("h3", { text: "The agent asked for" }), codeBlock(request.arguments)),
      el("section", { class: "block" }, el("h3", { text: "Approved instead" }), codeBlock(answer.arguments)),
    );
  }
  const block = el("section", { class: "block", id: "arguments" });
  const canEdit = request.waiting && request.mayDecide;
  const renderEditor = () => {
    block.replaceChildren(
      el("header", {}, el("h3", {}, el("label", { for: "editor", text: "Arguments, edited" })),
        el("button", { type: "button", class: "quiet", id: "undo-edit", text: "Undo changes", onclick: () => {
          state.edited = null;
          renderPlain();
          syncEditor();
          $("edit").focus();
        } })),
      editor(request),
      el("p", { class: "problem", id: "editor-problem", role: "status" }),
    );
  };
  const renderPlain = () => {
    const edit = el("button", { type: "button", class: "quiet", id: "edit", text: "Edit", onclick: () => {
      state.edited = pretty(request.arguments);
      renderEditor();
      syncEditor();
      $("editor").focus();
    } });
    block.replaceChildren(
      el("header", {}, el("h3", { text: "Arguments" }), canEdit ? edit : null),
      codeBlock(request.arguments),
    );
  };
  if (canEdit && state.edited !== null) renderEditor();
  else renderPlain();
  return block;
}

function forbidden(request) {
  return el(
    "div",
    { class: "note plain", id: "forbidden" },
    el("strong", { text: "You may see this request, but not answer it." }),
    el("span", {
      text: `That takes the verb "decide" on taskruntoolcalls in namespace ${request.namespace}: ClusterRole kubechain-approver has it.`,
    }),
  );
}

function settled(request) {
  const answer = request.answer;
  const bad = answer ? answer.approved === false : true;
  const next = state.waiting[0];
  const words = answer && (answer.comment || answer.message);
  return el(
    "div",
    { class: "actions", id: "settled" },
    el(
      "div",
      { class: `note${bad ? " bad" : ""}` },
      el("span", { class: "row" }, el("strong", { text: settledText(request) }), answer ? el("span", { class: "small" }, time(answer.at)) : null),
      words ? el("span", { text: `“${reveal(words)}”` }) : null,
    ),
    next
      ? el("div", { class: "buttons" }, el("button", { type: "button", id: "next", text: "Next request", onclick: () => openRequest(next, { focus: true }) }))
      : null,
  );
}

const SPEAKER = { system: "Instructions", user: "User", assistant: "Agent", tool: "Tool" };

function conversation(told) {
  const items = told.messages.map((message) =>
    el(
      "li",
      { "data-role": message.role },
      el("span", { class: "from", text: SPEAKER[message.role] || message.role }),
      message.text ? el("div", { class: "said", text: reveal(message.text) }) : null,
      ...message.toolCalls.map((call) => el("div", { class: "said mono", text: `${call.tool} ${reveal(call.arguments)}` })),
    ),
  );
  const notes = [told.missing, told.omitted ? "Earlier messages are not shown." : ""].filter(Boolean);
  return el(
    "details",
    { id: "conversation" },
    el("summary", { text: `Conversation so far${items.length ? ` (${items.length})` : ""}` }),
    el("ol", { class: "talk" }, ...notes.map((text) => el("li", {}, el("span", { class: "from", text }))), ...items),
  );
}

function steps(history) {
  const items = history.map((step) => el("li", {}, time(step.at), el("span", { text: reveal(step.what) })));
  return el("details", { id: "steps" }, el("summary", { text: "What happened so far" }), el("ol", { class: "steps" }, ...items));
}
