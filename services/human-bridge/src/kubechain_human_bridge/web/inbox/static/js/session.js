// Signing in and out, and going on where one was.

import { syncEditor } from "./answer.js";
import { banner } from "./elements.js";
import { renderList } from "./list.js";
import { connect, disconnect } from "./live.js";
import { $, api, openFromAddress, state } from "./page.js";
import { openRequest, renderDetail } from "./request.js";

function show(view) {
  document.body.dataset.view = view;
  $("sign-in").hidden = view !== "sign-in";
  $("inbox").hidden = view !== "inbox";
  $("who").hidden = view !== "inbox";
  $("live").hidden = view !== "inbox";
}

export function showSignIn(reason = "") {
  disconnect();
  if (reason) keepDraft();
  Object.assign(state, { user: null, waiting: [], total: 0, left: new Set(), decisions: [], request: null, open: openFromAddress() });
  $("list").replaceChildren();
  $("notes").replaceChildren();
  $("detail").replaceChildren();
  document.title = "Sign in · KubeChain";
  banner("");
  show("sign-in");
  $("sign-in-error").textContent = reason;
  $("token").focus();
}

function keepDraft() {
  const words = $("words")?.value || "";
  if (state.request && (words || state.edited !== null)) state.draft = { uid: state.request.uid, words, edited: state.edited };
}

// Whoever signs in again goes on where they were.
export function takeDraft(request) {
  const draft = state.draft;
  state.draft = null;
  if (!draft || draft.uid !== request.uid || !request.waiting) return;
  state.edited = draft.edited;
  renderDetail();
  if ($("words")) $("words").value = draft.words;
  syncEditor();
}

export function handleTrouble(error) {
  if (error.status === 401) showSignIn("Your session has ended. Sign in again.");
  else banner(error.message);
}

async function enter(session) {
  state.user = session.user;
  $("user").textContent = session.user;
  $("user").title = session.user;
  show("inbox");
  renderList();
  state.open = openFromAddress();
  connect();
  if (state.open) await openRequest(state.open, { focus: false });
  else renderDetail();
}

export async function signIn(event) {
  event.preventDefault();
  const button = $("sign-in-button");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  $("sign-in-error").textContent = "";
  try {
    const session = await api("session", "POST", { token: $("token").value.trim() });
    $("token").value = "";
    await enter(session);
  } catch (error) {
    $("sign-in-error").textContent = error.message;
    $("token").focus();
  } finally {
    button.setAttribute("aria-disabled", "false");
  }
}

export async function signOut() {
  state.draft = null;
  await api("session", "DELETE").catch(() => {});
  history.replaceState(null, "", "/");
  showSignIn();
}

// The server may be restarting: look again until it answers.
export async function resume() {
  try {
    const session = await api("session");
    banner("");
    await enter(session);
  } catch (error) {
    if (error.status === 401) return showSignIn();
    banner(error.message);
    setTimeout(resume, 5000);
  }
}
