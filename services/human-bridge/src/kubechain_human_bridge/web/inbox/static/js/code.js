// Arguments as a person can judge them: JSON, indented, with nothing in it that hides.

import { el } from "./elements.js";

// What can not be seen could mislead: it is shown as the escape that JSON has for it, which means the same.
const HIDDEN = /[\u0080-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb]|[\u{e0000}-\u{e0fff}]/gu;

export function reveal(text) {
  return text.replace(HIDDEN, (hit) => [...Array(hit.length).keys()]
    .map((i) => `\\u${hit.charCodeAt(i).toString(16).padStart(4, "0")}`).join(""));
}

// A model can write JSON so deep that its indents are a thousand times its size: then it is shown as it is.
const DEEPEST = 16;

// JSON text, indented. It is never parsed into numbers, so a large one stays what the model wrote.
export function pretty(text) {
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

export function codeBlock(text) {
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
