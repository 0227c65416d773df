// The inbox: a list of what waits, one request at a time beside it, and changes as they happen.

import { refreshTimes } from "./elements.js";
import { chooseTab } from "./list.js";
import { $, sameCall, state } from "./page.js";
import { closeRequest, followAddress, openRequest } from "./request.js";
import { resume, signIn, signOut } from "./session.js";

function move(by) {
  const items = state.tab === "history" ? state.decisions : state.waiting;
  if (!items.length) return;
  const at = items.findIndex((item) => sameCall(item, state.open));
  const next = items[Math.min(items.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
  openRequest(next, { focus: true });
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  a: () => $("approve")?.focus(),
  r: () => $("reject")?.focus(),
  m: () => $("words")?.focus(),
  e: () => ($("editor") ? $("editor").focus() : $("edit")?.click()),
  c: () => {
    const talk = $("conversation");
    if (!talk) return;
    talk.open = !talk.open;
    talk.querySelector("summary").focus();
  },
  w: () => chooseTab("waiting"),
  h: () => chooseTab("history"),
  "?": () => $("help").showModal(),
};

function handleKey(event) {
  if ($("inbox").hidden || $("help").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("textarea, input");
  if (event.key === "Escape") {
    if (typing) $("detail").focus();
    else closeRequest();
    return;
  }
  if (typing || !$("keys-on").checked) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function handleTabKey(event) {
  if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
  const other = state.tab === "waiting" ? "history" : "waiting";
  chooseTab(other);
  $(`tab-${other}`).focus();
}

async function start() {
  $("sign-in-form").addEventListener("submit", signIn);
  $("sign-out").addEventListener("click", signOut);
  $("open-help").addEventListener("click", () => $("help").showModal());
  $("tab-waiting").addEventListener("click", () => chooseTab("waiting"));
  $("tab-history").addEventListener("click", () => chooseTab("history"));
  document.querySelector(".tabs").addEventListener("keydown", handleTabKey);
  document.addEventListener("keydown", handleKey);
  addEventListener("hashchange", followAddress);
  $("skip").addEventListener("click", () => $("detail").focus());
  $("keys-on").checked = localStorage.getItem("kubechain-keys") !== "off";
  $("keys-on").addEventListener("change", (event) => localStorage.setItem("kubechain-keys", event.target.checked ? "on" : "off"));
  setInterval(refreshTimes, 10000);
  await resume();
}

start();
