// What every part of the page needs: its elements, what it knows, and the calls to the bridge.

export const $ = (id) => document.getElementById(id);

export const state = {
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

class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function api(path, method = "GET", body = undefined) {
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

export const pathOf = (request) => `requests/${encodeURIComponent(request.namespace)}/${encodeURIComponent(request.name)}`;
export const sameCall = (a, b) => Boolean(a && b && a.namespace === b.namespace && a.name === b.name);

// The address of a request is #namespace/name: links in messages lead there.
export function openFromAddress() {
  const match = location.hash.match(/^#([-a-z0-9]+)\/([-.a-z0-9]+)$/); // names need no escapes
  return match ? { namespace: match[1], name: match[2] } : null;
}

// How many wait beyond the end of the list.
export const hiddenOnes = () => state.total - state.waiting.length;

export const isPhone = () => matchMedia("(max-width: 760px)").matches;
export const titleOf = (item) => (item.kind === "question" ? "Question" : item.tool);
