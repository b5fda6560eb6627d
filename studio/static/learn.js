// Learn: every run in runs/, whoever started it: how far, how good, what it looks like.

import { api, ask, failed, fill, h, html, isOwner, onEvents, path, renew, tell } from "./studio.js";

const room = document.getElementById("room");
const list = h("div.cards.runs");
const head = h("div.stack.close", h("h1", "Runs"), h("p.soft", "All that learn in runs/ of this folder, from here or from the command line."));
fill(room, h("div.page", head, list));

const clock = (seconds) => {
  const s = Math.round(seconds);
  return s >= 3600 ? `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min` : s >= 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${s} s`;
};
const SVG = "http://www.w3.org/2000/svg";
function svg(tag, values, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A curve of each loss, and a legend: the largest value of the middle half of the run is at the top. */
function curves(all) {
  const names = Object.keys(all).filter((name) => all[name].length > 1);
  if (!names.length) return h("p.small.soft", "The first losses come after twenty steps.");
  const total = new Map();
  for (const name of names) for (const [step, value] of all[name]) total.set(step, (total.get(step) ?? 0) + value);
  const shown = { loss: [...total].sort((a, b) => a[0] - b[0]), ...Object.fromEntries(names.length > 1 ? names.map((name) => [name, all[name]]) : []) };
  const last = Math.max(...shown.loss.map(([step]) => step));
  const sorted = shown.loss.map(([, value]) => value).sort((a, b) => a - b);
  const top = sorted[Math.floor(sorted.length * 0.97)] * 1.05 || 1;
  const hues = ["var(--accent)", "var(--warn)", "var(--bad)", "var(--good)", "var(--soft)"];
  const picture = svg("svg", { viewBox: "0 0 300 90", class: "curve", preserveAspectRatio: "none", role: "img", "aria-label": `Losses up to step ${last}` });
  Object.values(shown).forEach((points, index) => {
    const d = points.map(([step, value], n) => `${n ? "L" : "M"}${((step / last) * 296 + 2).toFixed(1)} ${(86 - Math.min(1.04, Math.max(0, value / top)) * 80).toFixed(1)}`).join("");
    picture.append(svg("path", { d, fill: "none", stroke: hues[index % hues.length], "stroke-width": index ? 1 : 2, "vector-effect": "non-scaling-stroke", opacity: index ? 0.7 : 1 }));
  });
  return [picture, h("div.row.small", Object.entries(shown).slice(0, 5).map(([name, points], index) => h("span.row.tight", h("span.dot", { style: { background: hues[index % hues.length] } }), h("span.soft.num", `${name} ${points.at(-1)[1].toPrecision(3)}`))))];
}

const post = (name, what, body) => api(path("api", "learn", name, what), "POST", body).then(() => { tell(what === "stop" ? "It saves and stops" : "Going on", "good"); }, failed);
function card(run) {
  const kind = { running: "good", preparing: "", finishing: "good", finished: "", stopped: "warn", died: "bad" }[run.state];
  const ended = run.state === "stopped" || run.state === "died";
  const more = Math.max(1, Math.round(run.past / 60));
  const longer = () => {
    const minutes = h("input", { type: "number", min: 1, max: 100000, value: more, id: "more" });
    ask(`Let ${run.name} learn longer`, [h("p.soft", `It has learnt for ${clock(run.past)}, and goes on from there. What follows it, as its detection in the film, is made anew.`), h("label.field", "Minutes more", minutes)],
      [["Leave", () => {}], ["Go on", () => post(run.name, "resume", { minutes: Number(minutes.value) }), "main"]]);
  };
  return h("section.card", { "data-run": run.name, "data-state": run.state },
    h("div.row.tight", h("h1.grow.clip", run.name), h(`span.tag${kind ? "." + kind : ""}`, run.state)),
    h("div.bar-of", { role: "progressbar", "aria-valuenow": Math.round(run.share * 100), "aria-valuemin": 0, "aria-valuemax": 100 }, h("i", { style: { width: `${run.share * 100}%` } })),
    h("div.row.small.soft.num", h("span", `step ${run.step.toLocaleString("en")}`), run.budget && h("span", `budget ${run.budget}`), run.alive && run.left !== null && h("b", run.left > 0 ? `${clock(run.left)} left` : "measures, draws and writes")),
    h("div.row", // above what grows
      run.alive && isOwner && h("button", { onclick: () => post(run.name, "stop") }, "Stop and save"),
      ended && isOwner && (run.goes_on ? h("button.main", { onclick: () => post(run.name, "resume") }, run.left >= 1 ? `Go on (${clock(run.left)})` : "Go on") : h("span.small.soft", "Go on where it was started, with --resume.")),
      run.state === "finished" && isOwner && run.goes_on && h("button", { onclick: longer }, "Learn longer"),
      run.pack && h("a.button", { href: `/judge?pack=${encodeURIComponent(run.name)}` }, "Judge"),
      run.pack && h("a.button", { href: `/name?pack=${encodeURIComponent(run.name)}` }, "Name points"),
      run.report && h("a.button", { href: path("api", "learn", run.name, "report") }, "Report")),
    run.state === "died" && h("p.note.bad", "It ended before its time. The last lines below say why if it could; where they say nothing it was killed, as when memory runs out. What it saved last, a minute earlier at most, is there: go on."),
    run.state === "preparing" ? h("p.small.soft", "It gets its pictures ready; then the minutes count.") : curves(run.curves),
    run.preview ? h("a", { href: `${path("api", "learn", run.name, "preview")}?${run.preview}` }, h("img", { src: `${path("api", "learn", run.name, "preview")}?${run.preview}`, alt: `What ${run.name} finds now: pictures with landmarks, deformed, painted again`, style: { width: "100%", borderRadius: "8px", display: "block" } })) : run.alive && h("p.small.soft", "The first preview comes with the first look at held-out pictures."),
    run.lines.length ? h("pre", run.lines.join("\n")) : null);
}
async function show() {
  const runs = await api("/api/learn");
  renew(list, runs.length ? runs.map(card) : h("p.note", "Nothing has been learnt here yet. Begin in ", h("a", { href: "/find" }, "Find"), "."));
  html.dataset.ready = "yes";
}
let last = "";
let waits = 0;
onEvents(({ runs }) => {
  const now = JSON.stringify(runs);
  if (now === last) return;
  last = now;
  waits ||= setTimeout(() => { waits = 0; show().catch(failed); }, 500); // twice a second is often enough
});
setInterval(() => { if (document.visibilityState === "visible" && document.querySelector('[data-state="running"]')) show().catch(failed); }, 3000);
show().catch(failed);
