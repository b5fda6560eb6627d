// Judge: which landmarks to trust, each with its worst pictures; switch off what tells nothing.

import { about, api, asked, failed, fill, h, here, html, isOwner, onEvents, path, renew, tell } from "./studio.js";

const room = document.getElementById("room");
const packs = h("select", { "aria-label": "Pack" });
const sources = h("select", { "aria-label": "Film or folder" });
const body = h("div.stack");
let colours = [];
let told = null;
let off = new Set();
let merged = []; // pairs of names
let open = null; // the landmark whose gallery is shown

const kinds = { steady: "good", wobbly: "warn", stuck: "bad", background: "bad" };
const percent = (px) => (px === null ? "–" : `${((100 * px) / told.size).toFixed(1)} %`);
function words(mark) {
  if (mark.same_as) return `Sits on ${mark.same_as}: it says nothing new.`;
  if (mark.verdict === "stuck") return "Does not follow the object: it marks a place in the crop.";
  if (mark.useless) return "Jumps about, and not with the object.";
  if (mark.verdict === "wobbly") return `Typically off by ${percent(mark.median)} of the crop, in one view of ten by more than ${percent(mark.p90)}.`;
  return mark.turns ? "Follows every view, and turns with the object." : "Follows small changes; at 90° and 180° it is elsewhere.";
}
function shot(mark, each) {
  const NS = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(NS, "svg");
  picture.setAttribute("viewBox", `0 0 ${told.size} ${told.size}`);
  picture.setAttribute("class", "mark");
  const [x, y] = each.at;
  for (const [r, fillColour] of [[5, "#000"], [4, "#fff"], [3, colours[told.landmarks.indexOf(mark) % colours.length]]]) {
    const dot = document.createElementNS(NS, "circle");
    for (const [name, value] of Object.entries({ cx: x + 0.5, cy: y + 0.5, r, fill: fillColour })) dot.setAttribute(name, value);
    picture.append(dot);
  }
  return h("figure.crop", h("img", { src: path("api", "judge", packs.value, sources.value, String(each.number)), alt: `${each.name}: ${mark.name}`, loading: "lazy", width: told.size, height: told.size }), picture, h("figcaption.small.num", each.off === null ? "out of sight" : `off ${percent(each.off)}`));
}

function card(mark, index) {
  const gone = off.has(mark.name) || merged.some(([, b]) => b === mark.name);
  const shown = open === mark.name ? mark.gallery : mark.gallery.slice(0, 6);
  const twins = told.landmarks.filter((other) => other !== mark && !off.has(other.name));
  return h("section.card.stack.close", { "data-landmark": mark.name, style: { opacity: gone ? 0.55 : 1 } },
    h("div.row", h("span.dot", { style: { background: colours[index % colours.length] } }), h("h1", mark.name), h(`span.tag.${kinds[mark.verdict] ?? "warn"}`, mark.verdict),
      h("span.grow"), h("span.small.soft.num", `score ${mark.score?.toFixed(2) ?? "–"}`),
      isOwner && h("button", { "aria-pressed": off.has(mark.name) ? "true" : "false", onclick: () => { off.has(mark.name) ? off.delete(mark.name) : off.add(mark.name); show(); } }, off.has(mark.name) ? "Switched off" : "Switch off"),
      isOwner && h("select", { "aria-label": `Merge ${mark.name} with`, onchange: (event) => { merged = merged.filter((pair) => !pair.includes(mark.name)); if (event.target.value) merged.push([event.target.value, mark.name]); show(); } },
        h("option", { value: "" }, "merge with …"), twins.map((other) => h("option", { value: other.name, selected: merged.some(([a, b]) => b === mark.name && a === other.name) }, other.name)))),
    h("p.soft", words(mark)),
    h("div.crops", shown.map((each) => shot(mark, each))),
    mark.gallery.length > 6 && h("div", h("button.quiet", { onclick: () => { open = open === mark.name ? null : mark.name; show(); } }, open === mark.name ? "Fewer" : `All ${mark.gallery.length}, worst first`)));
}
function show() {
  if (!told) return;
  const gone = new Set([...off, ...merged.map(([, b]) => b)]);
  const left = told.landmarks.length - gone.size;
  const useless = told.landmarks.filter((mark) => mark.useless && !gone.has(mark.name));
  fill(body,
    h("div.note.row", h("b.grow", { id: "summary" }, told.summary), useless.length > 0 && isOwner && h("button", { onclick: () => { useless.forEach((mark) => off.add(mark.name)); show(); } }, `Switch off ${useless.map((mark) => mark.name).join(", ")}`)),
    gone.size > 0 && h("div.card.row", h("span.grow", h("b", `${left} of ${told.landmarks.length} landmarks stay. `), h("span.soft", "A new pack and its ONNX file, checked against each other.")),
      h("button", { onclick: () => { off.clear(); merged = []; show(); } }, "All again"), h("button.main", { onclick: prune, id: "prune", disabled: left < 1 }, `Make ${packs.value}-pruned`)),
    told.landmarks.map((mark, index) => [mark, index]).sort(([a], [b]) => (b.median ?? 1e9) - (a.median ?? 1e9)).map(([mark, index]) => card(mark, index)));
}
async function prune() {
  try {
    await api(path("api", "judge", packs.value, "prune"), "POST", { drop: [...off].filter((name) => !merged.some(([, b]) => b === name)), merge: merged });
    tell("Started", "good");
  } catch (error) { failed(error); }
}

let latest = 0;
async function load() {
  const mine = ++latest;
  here({ pack: packs.value, source: sources.value });
  told = null;
  off.clear();
  merged = [];
  while (mine === latest) {
    const now = await api(path("api", "judge", packs.value, sources.value)).catch((error) => {
      if (error.status) throw error;
      return null; // no answer, as when a lid was closed: asked again
    });
    if (mine !== latest) return;
    if (!now) { await new Promise((done) => setTimeout(done, 2000)); continue; }
    if (now.state === "failed") { html.dataset.ready = "yes"; return fill(body, h("p.note.bad", now.error)); }
    if (now.state === "done") { told = now; show(); html.dataset.ready = "yes"; return; }
    const [words_, [done_, all]] = now.seen[1] ? ["Looking at up to 100 pictures, each turned, scaled and shifted", now.seen] : [now.read[1] ? "Reading pictures" : "Choosing pictures", now.read];
    renew(body, h("div.note.stack.close", h("span", `${words_}${all ? `: ${done_.toLocaleString("en")} of ${all.toLocaleString("en")}` : ""} …`),
      h("div.bar-of", { role: "progressbar", "aria-label": words_, "aria-valuenow": all ? done_ : null, "aria-valuemin": 0, "aria-valuemax": all || null }, h("i", { style: { width: `${all ? (100 * done_) / all : 0}%` } })),
      h("span.small.soft", "It ends when you leave this page.")));
    await new Promise((done) => setTimeout(done, 700));
  }
}
async function start() {
  const project = await about();
  colours = project.colours;
  if (!project.sources.length) return fill(room, h("div.page", h("p.note", "No picture was opened: ", h("code", "lmk studio film.mp4"))));
  const mine = project.packs.filter((pack) => !pack.ships).sort((a, b) => b.changed - a.changed);
  fill(packs, [...mine, ...project.packs.filter((pack) => pack.ships)].map((pack) => h("option", { value: pack.name }, pack.name)));
  fill(sources, project.sources.map((source) => h("option", { value: source.key }, source.title)));
  packs.value = asked().get("pack") ?? project.pack ?? mine[0]?.name ?? project.packs[0].name;
  sources.value = asked().get("source") ?? project.sources[0].key;
  packs.onchange = sources.onchange = () => load().catch(failed);
  fill(room, h("div.page", h("div.row", h("h1.grow", "Which landmarks to trust"), h("label.field", "Pack", packs), h("label.field", "On", sources)), body));
  await load();
}
let done = 0;
onEvents(({ jobs }) => {
  const now = jobs.filter((job) => job.state === "done").length;
  if (now > done) about(true);
  done = now;
});
start().catch(failed);
