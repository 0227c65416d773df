// The list of what waits, and of what was decided.

import { reveal } from "./code.js";
import { el, time } from "./elements.js";
import { $, api, hiddenOnes, sameCall, state, titleOf } from "./page.js";
import { openRequest, settledText } from "./request.js";
import { handleTrouble } from "./session.js";

export function renderList() {
  const history = state.tab === "history";
  const items = history ? state.decisions : state.waiting;
  const held = document.activeElement?.closest?.("#list button")?.dataset.key;
  $("list").replaceChildren(...items.map((item) => el("li", {}, history ? historyRow(item) : waitingRow(item))));
  if (held) [...$("list").querySelectorAll("button")].find((button) => button.dataset.key === held)?.focus();
  $("count").textContent = state.total;
  document.title = `${state.total ? `(${state.total}) ` : ""}Inbox · KubeChain`;
  const hidden = history ? 0 : hiddenOnes();
  $("more").hidden = hidden <= 0;
  $("more").textContent = `and ${hidden} newer, shown once these are answered`;
  $("empty").hidden = items.length > 0 || hidden > 0;
  $("empty-title").textContent = history ? "No decisions yet" : "Nothing waits for you";
  $("empty-text").textContent = history
    ? "What is decided here, or with kubectl, shows up here."
    : "New requests show up here by themselves.";
  for (const tab of ["waiting", "history"]) {
    $(`tab-${tab}`).setAttribute("aria-selected", String(state.tab === tab));
    $(`tab-${tab}`).tabIndex = state.tab === tab ? 0 : -1;
  }
  $("panel").setAttribute("aria-labelledby", `tab-${state.tab}`);
}

function row(item, top, ...lines) {
  return el(
    "button",
    {
      type: "button",
      "data-key": `${item.namespace}/${item.name}`,
      "aria-current": sameCall(item, state.open) ? "true" : undefined,
      class: item.fresh ? "fresh" : undefined,
      onclick: () => openRequest(item, { focus: true }),
    },
    el("span", { class: "row" }, ...top),
    ...lines,
  );
}

function waitingRow(item) {
  return row(
    item,
    [el("span", { class: "tool", text: titleOf(item) }), el("span", { class: "small" }, time(item.askedAt))],
    el("span", { class: item.kind === "question" ? "line words" : "line mono", text: reveal(item.preview) }),
    el("span", { class: "line", text: [item.agent, item.task, item.namespace].filter(Boolean).join(" · ") }),
  );
}

function historyRow(item) {
  const answer = item.answer;
  return row(
    item,
    [el("span", { class: "tool", text: titleOf(item) }), el("span", { class: "small" }, time(answer.at))],
    el("span", { class: "line", text: settledText(item) }),
    el("span", { class: "line", text: reveal(answer.comment || answer.message || item.preview) }),
  );
}

export async function chooseTab(tab) {
  state.tab = tab;
  renderList();
  if (tab === "history") {
    await loadHistory();
    renderList();
  }
}

export async function loadHistory() {
  try {
    state.decisions = (await api("history")).decisions;
  } catch (error) {
    handleTrouble(error);
  }
}
