// Changes as they happen: what arrives, what leaves, and the list read anew when that is not enough.

import { announce, banner, el, time } from "./elements.js";
import { loadHistory, renderList } from "./list.js";
import { $, api, hiddenOnes, isPhone, sameCall, state, titleOf } from "./page.js";
import { openRequest, refreshOpen, renderDetail, settledText } from "./request.js";
import { handleTrouble, showSignIn } from "./session.js";

const AGAIN = 5000; // milliseconds after which a list that could not be read is read again
const SOON = 2000; // milliseconds in which changes are gathered before the list is read anew

let source = null;
let retry = 0;
let planned = 0; // the timer of the next reading
let readings = 0;
let changes = 0; // those told live, to see that one came while the list was read
let unread = ""; // why the list could not be read

export function connect() {
  disconnect();
  source = new EventSource("/api/v1/events");
  source.addEventListener("hello", () => {
    setLive(true);
    banner("");
    reload();
  });
  source.addEventListener("arrived", (event) => arrive(JSON.parse(event.data)));
  source.addEventListener("left", (event) => leave(JSON.parse(event.data)));
  source.addEventListener("expired", () => showSignIn("Your session has ended. Sign in again."));
  source.onerror = async () => {
    setLive(false);
    if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
    disconnect();
    retry = setTimeout(connect, 5000);
    try {
      await api("session");
    } catch (error) {
      if (error.status === 401) handleTrouble(error);
    }
  };
}

export function disconnect() {
  clearTimeout(retry);
  clearTimeout(planned);
  planned = 0;
  readings += 1; // what is being read comes too late
  if (source) source.close();
  source = null;
}

function setLive(live) {
  $("live").dataset.state = live ? "live" : "away";
  $("live-text").textContent = live ? "Live" : "Reconnecting";
}

function reloadIn(milliseconds) {
  if (!planned && source) planned = setTimeout(reload, milliseconds);
}

async function reload() {
  clearTimeout(planned);
  planned = 0;
  readings += 1;
  const [reading, before] = [readings, changes];
  let answer;
  try {
    answer = await api("requests");
  } catch (error) {
    if (reading !== readings) return;
    unread = error.message;
    handleTrouble(error);
    reloadIn(AGAIN);
    return;
  }
  if (reading !== readings) return;
  state.waiting = answer.requests;
  state.total = answer.total;
  state.left.clear();
  if (unread && $("banner").textContent === unread) banner("");
  unread = "";
  if (changes !== before) reloadIn(SOON); // it may be older than what was told meanwhile
  if (state.tab === "history") await loadHistory();
  renderList();
  const request = state.request;
  if (request && request.waiting && !state.waiting.some((other) => sameCall(other, request))) refreshOpen();
  else if (request && !request.waiting && state.waiting.length && !$("next")) renderDetail();
  else if (!state.open && !isPhone() && state.tab === "waiting" && state.waiting.length) {
    openRequest(state.waiting[0], { focus: false });
  }
}

function arrive(request) {
  changes += 1;
  state.left.delete(request.uid);
  const known = state.waiting.findIndex((other) => sameCall(other, request));
  if (known >= 0) state.waiting[known] = request;
  else {
    if (!hiddenOnes()) state.waiting.push(request); // behind hidden ones it is hidden as well
    state.total += 1;
  }
  request.fresh = true;
  renderList();
  request.fresh = false;
  announce(`New ${request.kind === "question" ? "question" : "request"}: ${request.tool}, Task ${request.task}`);
  if (!state.open && !isPhone() && state.tab === "waiting") openRequest(request, { focus: false });
}

// Takes it off the list, or off those beyond its end: once, whoever tells of it first.
export function drop(request) {
  changes += 1;
  const listed = state.waiting.some((other) => sameCall(other, request));
  if (listed || (hiddenOnes() > 0 && !state.left.has(request.uid))) state.total -= 1;
  state.waiting = state.waiting.filter((other) => !sameCall(other, request));
  state.left.add(request.uid);
  if (hiddenOnes() > 0) reloadIn(SOON); // nothing tells of what comes into the list from beyond its end
}

function leave(request) {
  drop(request);
  renderList();
  if (state.tab === "history") loadHistory().then(renderList);
  if (sameCall(state.open, request) && !state.busy) refreshOpen();
  else if (!request.answer || request.answer.by !== state.user) note(request);
}

// What went without this person: said below the list for a minute.
function note(request) {
  const text = `${titleOf(request)} · ${settledText(request)} · `;
  const at = request.answer?.at || new Date().toISOString();
  const line = el("li", {}, el("span", { text }), time(at));
  $("notes").prepend(line);
  [...$("notes").children].slice(3).forEach((old) => old.remove());
  setTimeout(() => line.remove(), 60000);
  announce(`${titleOf(request)}: ${settledText(request)}`);
}
