// The inbox: a list of what waits, one request at a time beside it, and changes as they happen.
// All text comes from models and strangers: it goes into the page as text, never as markup.

const $ = (id) => document.getElementById(id);
const state = {
  user: null,
  tab: "waiting",
  waiting: [],
  total: 0, // of those that wait: the list has the oldest
  left: new Set(), // uids of those that were taken off the total since it was read
  decisions: [],
  open: null, // {namespace, name} of the request shown
  request: null, // the request shown, whole
  edited: null, // text of the arguments' editor
  draft: null, // what was being written when the session ended
  busy: false,
};

// --- talking to the bridge ---

class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function api(path, method = "GET", body = undefined) {
  let response;
  try {
    response = await fetch(`/api/v1/${path}`, {
      method,
      headers: { "X-KubeChain-Page": "1", ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
    });
  } catch {
    throw new ApiError(0, "The server can not be reached. Check the connection and try again.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  throw new ApiError(response.status, answer.error || `The server answered ${response.status}.`);
}

const pathOf = (request) => `requests/${encodeURIComponent(request.namespace)}/${encodeURIComponent(request.name)}`;
const sameCall = (a, b) => Boolean(a && b && a.namespace === b.namespace && a.name === b.name);

// --- building the page ---

function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const relative = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "short" });

function ago(moment) {
  const seconds = (new Date(moment) - Date.now()) / 1000;
  const size = Math.abs(seconds);
  if (size < 10) return seconds > 0 ? "in a moment" : "just now";
  if (size < 60) return relative.format(Math.round(seconds), "second");
  if (size < 3600) return relative.format(Math.round(seconds / 60), "minute");
  if (size < 86400) return relative.format(Math.round(seconds / 3600), "hour");
  return relative.format(Math.round(seconds / 86400), "day");
}

function time(moment) {
  if (!moment) return el("span", { text: "" });
  return el("time", { datetime: moment, title: new Date(moment).toLocaleString(), "data-ago": true, text: ago(moment) });
}

function refreshTimes() {
  for (const node of document.querySelectorAll("time[data-ago]")) {
    node.textContent = ago(node.dateTime);
    if (node.dataset.deadline !== undefined) markDeadline(node);
  }
}

const markDeadline = (node) => node.classList.toggle("soon", new Date(node.dateTime) - Date.now() < 5 * 60 * 1000);

function announce(text) {
  $("announcer").textContent = text;
}

function banner(text) {
  $("banner").textContent = text;
  $("banner").hidden = !text;
}

// What can not be seen could mislead: it is shown as the escape that JSON has for it, which means the same.
const HIDDEN = /[\u0080-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb]|[\u{e0000}-\u{e0fff}]/gu;

function reveal(text) {
  return text.replace(HIDDEN, (hit) => [...Array(hit.length).keys()]
    .map((i) => `\\u${hit.charCodeAt(i).toString(16).padStart(4, "0")}`).join(""));
}

// A model can write JSON so deep that its indents are a thousand times its size: then it is shown as it is.
const DEEPEST = 16;

// JSON text, indented. It is never parsed into numbers, so a large one stays what the model wrote.
function pretty(text) {
  try {
    JSON.parse(text);
  } catch {
    return reveal(text);
  }
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/gs) || [];
  let out = "";
  let depth = 0;
  const newline = () => `\n${"  ".repeat(depth)}`;
  if (isDeep(tokens)) return reveal(text);
  tokens.forEach((token, i) => {
    if (token === "{" || token === "[") {
      const closes = tokens[i + 1] === (token === "{" ? "}" : "]");
      depth += 1;
      out += closes ? token : token + newline();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      const opened = tokens[i - 1] === (token === "}" ? "{" : "[");
      out += opened ? token : newline() + token;
    } else if (token === ",") out += token + newline();
    else if (token === ":") out += ": ";
    else out += reveal(token);
  });
  return out;
}

function isDeep(tokens) {
  let depth = 0;
  return tokens.some((token) => {
    if (token === "{" || token === "[") depth += 1;
    else if (token === "}" || token === "]") depth -= 1;
    return depth > DEEPEST;
  });
}

// To read long texts in it: a line that was escaped goes on below its escape.
const unfold = (shown) => shown.replace(/\\(?:u[0-9a-fA-F]{4}|.)/g, (hit) => (hit === "\\n" ? "\\n\n    " : hit));

function codeBlock(text) {
  const shown = unfold(pretty(text));
  const block = el("pre", { tabindex: "0", "aria-label": "Arguments" });
  const whole = el("button", { type: "button", class: "quiet whole", text: "Show all of it", hidden: true, onclick: () => {
    block.classList.add("all");
    whole.remove();
    block.focus();
  } });
  // Nobody should approve what they did not know was there.
  new ResizeObserver(() => {
    whole.hidden = block.scrollHeight <= block.clientHeight + 2;
  }).observe(block);
  fillCode(block, shown);
  return el("div", { class: "code" }, block, whole);
}

function fillCode(block, shown) {
  if (shown.length > 100000) {
    block.textContent = shown;
    return;
  }
  // Keys stand out; the rest is plain.
  let at = 0;
  for (const hit of shown.matchAll(/^( *)("(?:[^"\\]|\\.)*")(?=: )/gm)) {
    const from = hit.index + hit[1].length;
    block.append(shown.slice(at, from), el("span", { class: "key", text: hit[2] }));
    at = from + hit[2].length;
  }
  block.append(shown.slice(at));
}

// --- states ---

function show(view) {
  document.body.dataset.view = view;
  $("sign-in").hidden = view !== "sign-in";
  $("inbox").hidden = view !== "inbox";
  $("who").hidden = view !== "inbox";
  $("live").hidden = view !== "inbox";
}

function showSignIn(reason = "") {
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
function takeDraft(request) {
  const draft = state.draft;
  state.draft = null;
  if (!draft || draft.uid !== request.uid || !request.waiting) return;
  state.edited = draft.edited;
  renderDetail();
  if ($("words")) $("words").value = draft.words;
  syncEditor();
}

function handleTrouble(error) {
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

// The address of a request is #namespace/name: links in messages lead there.
function openFromAddress() {
  const match = location.hash.match(/^#([-a-z0-9]+)\/([-.a-z0-9]+)$/); // names need no escapes
  return match ? { namespace: match[1], name: match[2] } : null;
}

function followAddress() {
  const wanted = openFromAddress();
  if (wanted && state.user && !sameCall(wanted, state.open)) openRequest(wanted, { focus: true });
}

// --- live ---

const AGAIN = 5000; // milliseconds after which a list that could not be read is read again
const SOON = 2000; // milliseconds in which changes are gathered before the list is read anew

let source = null;
let retry = 0;
let planned = 0; // the timer of the next reading
let readings = 0;
let changes = 0; // those told live, to see that one came while the list was read
let unread = ""; // why the list could not be read

function connect() {
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

function disconnect() {
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
function drop(request) {
  const listed = state.waiting.some((other) => sameCall(other, request));
  if (listed || (hiddenOnes() > 0 && !state.left.has(request.uid))) state.total -= 1;
  state.waiting = state.waiting.filter((other) => !sameCall(other, request));
  state.left.add(request.uid);
  if (hiddenOnes() > 0) reloadIn(SOON); // nothing tells of what comes into the list from beyond its end
}

function leave(request) {
  changes += 1;
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

// Somebody else, or nobody any more: the request stays in view, with what became of it in place of the buttons.
async function refreshOpen() {
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

function settledText(request) {
  const answer = request.answer;
  if (request.gone) return "This request does not exist any more.";
  if (!answer) return request.ended || `It waits no longer: ${request.statusDetail || "it has ended"}.`;
  const verb = answer.approved === undefined ? "Answered" : answer.approved ? "Approved" : "Rejected";
  const by = answer.by === state.user ? "you" : answer.by || "somebody";
  return `${verb} by ${by}${answer.via ? ` (${answer.via})` : ""}`;
}

// --- the list ---

// How many wait beyond the end of the list.
const hiddenOnes = () => state.total - state.waiting.length;

const isPhone = () => matchMedia("(max-width: 760px)").matches;

function renderList() {
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

const titleOf = (item) => (item.kind === "question" ? "Question" : item.tool);

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

async function chooseTab(tab) {
  state.tab = tab;
  renderList();
  if (tab === "history") {
    await loadHistory();
    renderList();
  }
}

async function loadHistory() {
  try {
    state.decisions = (await api("history")).decisions;
  } catch (error) {
    handleTrouble(error);
  }
}

// --- one request ---

async function openRequest(item, { focus }) {
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

function closeRequest() {
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

function renderDetail() {
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

function editor(request) {
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

function syncEditor() {
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

function actions(request) {
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
  changes += 1;
  drop(request);
  renderList();
  if (!sameCall(state.open, request)) return;
  await refreshOpen();
  $("next")?.focus();
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

// --- keys ---

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

// --- start ---

async function signIn(event) {
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

async function signOut() {
  state.draft = null;
  await api("session", "DELETE").catch(() => {});
  history.replaceState(null, "", "/");
  showSignIn();
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

// The server may be restarting: look again until it answers.
async function resume() {
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

start();
