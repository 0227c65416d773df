// Answering a request: the editor of its arguments, the buttons, and what is sent.

import { pretty } from "./code.js";
import { banner, el } from "./elements.js";
import { renderList } from "./list.js";
import { drop } from "./live.js";
import { $, api, pathOf, sameCall, state } from "./page.js";
import { refreshOpen } from "./request.js";
import { handleTrouble } from "./session.js";

export function editor(request) {
  const area = el("textarea", {
    id: "editor", class: "editor", spellcheck: "false", autocapitalize: "off", "aria-describedby": "editor-problem",
    rows: Math.min(24, state.edited.split("\n").length + 1),
    oninput: () => {
      state.edited = area.value;
      syncEditor();
    },
  });
  area.value = state.edited;
  return area;
}

// Why the edited text can not be sent; empty when it can.
function editorProblem() {
  if (state.edited === null) return "";
  try {
    const value = JSON.parse(state.edited);
    return value !== null && typeof value === "object" && !Array.isArray(value) ? "" : "The arguments have to be a JSON object: { … }";
  } catch (error) {
    return `Not valid JSON yet: ${error.message}`;
  }
}

const isEdited = () => state.edited !== null && state.edited !== pretty(state.request.arguments);

export function syncEditor() {
  const problem = editorProblem();
  const area = $("editor");
  if (area) {
    area.setAttribute("aria-invalid", String(Boolean(problem)));
    $("editor-problem").textContent = problem;
  }
  const approve = $("approve");
  if (approve) {
    approve.setAttribute("aria-disabled", String(Boolean(problem)));
    approve.textContent = isEdited() ? "Approve with changes" : "Approve";
  }
}

export function actions(request) {
  const question = request.kind === "question";
  const field = el("textarea", { id: "words", rows: question ? 4 : 2, maxlength: question ? undefined : 65536 });
  const problem = el("p", { class: "problem", id: "problem", role: "alert" });
  const send = (path, body) => decide(request, path, body, problem);
  const decision = (approved) => () => {
    if (approved && editorProblem()) return $("editor").focus();
    const body = { uid: request.uid, approved };
    if (field.value.trim()) body.comment = field.value;
    if (approved && isEdited()) body.arguments = state.edited;
    return send("decision", body);
  };
  const respond = () => {
    if (field.value.trim()) return send("response", { uid: request.uid, message: field.value });
    problem.textContent = "Write an answer first.";
    return field.focus();
  };
  if (question) field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) respond();
  });
  const buttons = question
    ? [el("button", { type: "button", class: "primary", id: "respond", text: "Send answer", onclick: respond })]
    : [
        el("button", { type: "button", class: "primary", id: "approve", text: "Approve", onclick: decision(true) }),
        el("button", { type: "button", class: "danger", id: "reject", text: "Reject", onclick: decision(false) }),
      ];
  const label = el("label", { for: "words", text: question ? "Your answer" : "Comment " });
  if (!question) label.append(el("span", { text: "(optional; the agent reads it when you reject)" }));
  return el("div", { class: "actions", id: "actions" }, label, field, problem, el("div", { class: "buttons" }, ...buttons));
}

async function decide(request, path, body, problem) {
  if (state.busy) return;
  state.busy = true;
  problem.textContent = "";
  try {
    await api(`${pathOf(request)}/${path}`, "POST", body);
  } catch (error) {
    if (error.status === 401) return handleTrouble(error);
    if (error.status !== 409 && error.status !== 404) {
      problem.textContent = error.message;
      return;
    }
    banner(error.message);
  } finally {
    state.busy = false;
  }
  state.edited = null;
  drop(request);
  renderList();
  if (!sameCall(state.open, request)) return;
  await refreshOpen();
  $("next")?.focus();
}
