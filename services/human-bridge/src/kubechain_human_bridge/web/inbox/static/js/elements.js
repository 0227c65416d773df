// Building the page. All text comes from models and strangers: it goes in as text, never as markup.

import { $ } from "./page.js";

export function el(tag, properties = {}, ...children) {
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

export function time(moment) {
  if (!moment) return el("span", { text: "" });
  return el("time", { datetime: moment, title: new Date(moment).toLocaleString(), "data-ago": true, text: ago(moment) });
}

export function refreshTimes() {
  for (const node of document.querySelectorAll("time[data-ago]")) {
    node.textContent = ago(node.dateTime);
    if (node.dataset.deadline !== undefined) markDeadline(node);
  }
}

export const markDeadline = (node) => node.classList.toggle("soon", new Date(node.dateTime) - Date.now() < 5 * 60 * 1000);

export function announce(text) {
  $("announcer").textContent = text;
}

export function banner(text) {
  $("banner").textContent = text;
  $("banner").hidden = !text;
}
