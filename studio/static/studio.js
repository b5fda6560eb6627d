// What all rooms share: elements, requests, events, keys, the state of saving.

export const html = document.documentElement;
export const isOwner = html.dataset.owner === "yes";

/** An element: h("p.soft", {onclick}, "text", other). Text is never markup. */
export function h(kind, props, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  if (props instanceof Node || typeof props !== "object" || props === null || Array.isArray(props)) {
    if (props !== undefined && props !== null) children.unshift(props);
    props = {};
  }
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") Object.assign(element.style, value);
    else if (name in element && name !== "list" && !name.startsWith("aria")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replace what is in an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
}

/** As `fill`, with new elements alone, but what is alike stays: a button under the hand, a picture. */
export function renew(element, ...children) {
  patch(element, h("div", {}, ...children));
}
function patch(element, next) {
  const [old, fresh] = [[...element.childNodes], [...next.childNodes]];
  fresh.forEach((node, index) => {
    const was = old[index];
    if (!was) element.append(node);
    else if (was.nodeType !== node.nodeType || was.nodeName !== node.nodeName || was.namespaceURI !== node.namespaceURI) was.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) { if (was.data !== node.data) was.data = node.data; } else {
      for (const { name } of [...was.attributes]) if (name !== "style" && !node.hasAttribute(name)) was.removeAttribute(name);
      for (const { name, value } of node.attributes) if (name !== "style" && was.getAttribute(name) !== value) was.setAttribute(name, value);
      was.style.cssText = node.style.cssText;
      for (const name of ["onclick", "onchange"]) was[name] = node[name];
      patch(was, node);
      if (node.nodeName === "SELECT") was.value = node.value;
    }
  });
  for (const node of old.slice(fresh.length)) node.remove();
}

export class Trouble extends Error {
  constructor(status, told) {
    super(told.error ?? "changed by somebody else");
    this.status = status;
    this.now = told.now;
  }
}

/** JSON in, JSON out; what the server refuses is thrown as Trouble. */
export async function api(path, method = "GET", body) {
  const options = { method };
  if (method !== "GET") {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body ?? {});
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Trouble(0, { error: "the studio does not answer; is it still running?" });
  }
  const told = await answer.json().catch(() => ({ error: `the studio answers ${answer.status}` }));
  if (!answer.ok) throw new Trouble(answer.status, told);
  return told;
}

export const path = (...parts) => "/" + parts.map((part) => encodeURIComponent(part)).join("/");

let project;
/** What was opened; asked for once, anew with `again`. */
export function about(again = false) {
  if (!project || again) project = api("/api/project");
  return project;
}

/** What stands behind the ? of the address. */
export const asked = () => new URLSearchParams(location.search);
/** Let the address say where we are, so that it can be shared and reloaded. */
export function here(values, push = false) {
  const query = asked();
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === undefined) query.delete(name);
    else query.set(name, value);
  }
  const address = `${location.pathname}?${query}`;
  if (address !== location.pathname + location.search) history[push ? "pushState" : "replaceState"](null, "", address);
}

const state = document.getElementById("state");
/** What happens to the work, in the bar: kind is "", "good" or "bad". */
export function tell(text, kind = "") {
  state.textContent = text;
  state.dataset.kind = kind;
  trouble.hidden = kind !== "bad" || text.length < LONG;
  if (!trouble.hidden) fill(trouble, h("span.grow", text), h("button.quiet", { onclick: () => { trouble.hidden = true; }, "aria-label": "Put away" }, "×"));
}

const LONG = 60; // letters that the bar has room for
export function failed(error) {
  console.error(error);
  tell(error.message, "bad");
}
const trouble = h("div.note.bad.row", { id: "trouble", role: "alert", hidden: true });
document.body.append(trouble);

const listeners = [];
let latest;
/** Call `listener` with the whole state of jobs and scans whenever it changes. */
export function onEvents(listener) {
  listeners.push(listener);
  if (latest) listener(latest);
}
function listen() {
  const events = new EventSource("/api/events"); // comes back by itself when the line was cut
  events.onmessage = (event) => {
    latest = JSON.parse(event.data);
    html.dataset.connected = "yes";
    for (const listener of listeners) listener(latest);
  };
  events.onerror = () => {
    html.dataset.connected = "no";
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}
listen();

const keys = [];
/** key(["ArrowRight"], "the next frame", action): with "Shift+", "Ctrl+" before it. */
export function key(names, words, action) {
  keys.push({ names, words, action });
}
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input:not([type=range]), select, textarea, dialog")) return;
  if (event.target.closest("button, a") && ["Enter", " "].includes(event.key)) return;
  const name = (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + (event.shiftKey && event.key.length > 1 ? "Shift+" : "") + (event.key.length === 1 ? event.key.toLowerCase() : event.key);
  const found = keys.find((each) => each.names.includes(name));
  if (!found) return;
  event.preventDefault();
  found.action(event);
});
const pretty = { ArrowRight: "→", ArrowLeft: "←", ArrowUp: "↑", ArrowDown: "↓", " ": "space" };
export const cap = (name) => h("kbd", name.split("+").map((part) => pretty[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" + ") || "+");
function showKeys() {
  const list = h("dl.keys", keys.filter(({ words }) => words).map(({ names, words }) => [h("dt", names.map(cap)), h("dd", words)]));
  ask("Keys", [list], [["Close", () => {}]]);
}
key(["?"], "these keys", showKeys);
document.getElementById("help").addEventListener("click", showKeys);

/** A question over the page: buttons are [words, action, "main"?]. */
export function ask(title, content, buttons) {
  const dialog = h("dialog", { "aria-label": title }, h("div.stack", h("h1", title), content, h("div.row", buttons.map(([words, action, kind]) =>
    h(`button${kind ? "." + kind : ""}`, { onclick: () => { dialog.close(); action(); } }, words)))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" }); // on a narrow screen
const theme = document.getElementById("theme");
if (localStorage.theme) html.dataset.theme = localStorage.theme;
theme.addEventListener("click", () => {
  const dark = html.dataset.theme ? html.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  html.dataset.theme = localStorage.theme = dark ? "light" : "dark";
  dispatchEvent(new Event("themed"));
});

// Jobs that run, in every room, and those that have ended until they are put away: below the page, so
// that they cover nothing, a line each, of which a click shows more.
const away = new Set(JSON.parse(sessionStorage.away ?? "[]"));
const spread = new Set();
const drawer = document.getElementById("jobs");
function showJobs() {
  const shown = latest.jobs.filter((job) => !away.has(`${job.key} ${job.began}`)).slice(0, 3);
  renew(drawer, shown.map((job) => {
    const kind = { running: "", done: "good", failed: "bad", stopped: "warn" }[job.state];
    const put = () => {
      away.add(`${job.key} ${job.began}`);
      sessionStorage.away = JSON.stringify([...away]);
      showJobs();
    };
    const open = spread.has(job.key);
    const more = () => {
      open ? spread.delete(job.key) : spread.add(job.key);
      showJobs();
    };
    const steps = job.commands.length > 1 && job.state === "running" ? ` (${job.at + 1} of ${job.commands.length}: ${job.commands[job.at].split(" ")[1]})` : "";
    return h("section", { "data-job": job.state },
      h("div.row.tight", h("button.quiet", { onclick: more, "aria-expanded": open ? "true" : "false", "aria-label": "What it says" }, open ? "▾" : "▸"),
        h("b.clip", { title: job.title }, job.title + steps), h(`span.tag${kind ? "." + kind : ""}`, job.state === "failed" ? `failed, exit code ${job.code}` : job.state),
        h("span.last.clip.small.soft.grow", (!open && job.lines.at(-1)) || ""),
        job.state === "running"
          ? isOwner && h("button.quiet", { onclick: () => api(path("api", "jobs", job.key, "stop"), "POST").catch(failed), "aria-label": "Stop" }, "Stop")
          : h("button.quiet", { onclick: put, "aria-label": "Put away" }, "×")),
      job.state === "failed" && !open && h("p.small.bad", job.lines.at(-1) ?? ""),
      open && h("pre", job.lines.join("\n") || "…"));
  }));
}
onEvents(showJobs);
