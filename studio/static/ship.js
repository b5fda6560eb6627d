// Ship: files for elsewhere: what this machine can make, how far off, how large, how fast.

import { about, api, asked, failed, fill, h, here, html, isOwner, onEvents, path, tell } from "./studio.js";

const room = document.getElementById("room");
const packs = h("select", { "aria-label": "Pack" });
const precision = h("select", { "aria-label": "Precision" });
const engine = h("select", { "aria-label": "For" });
const data = h("select", { "aria-label": "Verified on" });
const body = h("div.stack");
const speeds = {};
let told = null;

const size = (bytes) => (bytes > 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.round(bytes / 1e3)} kB`);
const drift = (file) => (file.mean_px !== undefined && file.mean_px !== null ? `${file.mean_px.toPrecision(2)} px on average` : file.max_px !== undefined && file.max_px !== null ? `at most ${file.max_px.toExponential(0)} px` : "–");
async function measure(name) {
  speeds[name] = "…";
  show();
  try { speeds[name] = `${(await api(path("api", "ship", packs.value, "speed", name), "POST")).ms} ms`; } catch (error) { speeds[name] = null; failed(error); }
  show();
}
function show() {
  const choice = told.choices.find((each) => each.engine === engine.value) ?? told.choices[0];
  const needs = told.from_images.includes(precision.value);
  fill(body,
    h("div.card.stack", h("div.row", h("label.field", "For", engine), h("label.field", "Precision", precision), h("label.field", "Verified on", data),
      h("button.main", { onclick: make, id: "make", disabled: !isOwner || Boolean(choice.missing) || (needs && !data.value) }, "Make")),
      choice.missing ? h("p.note.warn", `Not on this machine yet: `, h("code", choice.missing)) : h("p.small.soft", needs ? "Its scales are set by pictures of the category, and half of them judge it." : "Refused where it would not find what the pack finds.")),
    h("div.card.wide", h("table", h("thead", h("tr", h("th", "file"), h("th", "what"), h("th.num", "size"), h("th.num", "drift"), h("th.num", "a crop, here"), h("th"))),
      h("tbody", told.made.map((file) => h("tr", { "data-file": file.name }, h("td", h("b", file.name)), h("td.soft", file.what, file.precision ? `, ${file.precision}` : "", file.stale ? h("span.tag.warn", "of an earlier pack") : null),
        h("td.num", size(file.bytes)), h("td.num", file.what === "ONNX" ? drift(file) : ""), h("td.num", file.runs ? (speeds[file.name] ?? h("button", { onclick: () => measure(file.name), disabled: !isOwner }, "Measure")) : ""),
        h("td", h("a", { href: path("api", "ship", packs.value, "file", file.name), download: file.name }, "Download"))))))));
}
async function make() {
  try {
    await api(path("api", "ship", packs.value, "export"), "POST", { engine: engine.value, precision: precision.value, source: data.value || null });
    tell("Started", "good");
  } catch (error) { failed(error); }
}
async function load() {
  here({ pack: packs.value });
  told = await api(path("api", "ship", packs.value));
  if (!engine.options.length) {
    fill(engine, told.choices.map((each) => h("option", { value: each.engine }, each.title)));
    fill(precision, told.choices[0].precisions.map((each) => h("option", { value: each }, each)));
  }
  show();
  html.dataset.ready = "yes";
}
async function start() {
  const project = await about();
  const mine = project.packs.filter((pack) => !pack.ships).sort((a, b) => b.changed - a.changed);
  fill(packs, [...mine, ...project.packs.filter((pack) => pack.ships)].map((pack) => h("option", { value: pack.name }, pack.name)));
  packs.value = asked().get("pack") ?? project.pack ?? mine[0]?.name ?? project.packs[0].name;
  fill(data, h("option", { value: "" }, "synthetic pictures"), project.sources.map((source) => h("option", { value: source.key }, source.title)));
  packs.onchange = () => load().catch(failed);
  engine.onchange = precision.onchange = data.onchange = show;
  fill(room, h("div.page", h("div.row", h("h1.grow", "Files for elsewhere"), h("label.field", "Pack", packs)), body));
  await load();
}
let done = 0;
onEvents(({ jobs }) => {
  const now = jobs.filter((job) => job.state === "done").length;
  if (now > done && html.dataset.ready) load().catch(failed);
  done = now;
});
start().catch(failed);
