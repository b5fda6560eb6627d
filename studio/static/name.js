// Name: click points of one's own; the table on the disk follows every click.

import { about, api, ask, asked, cap, failed, fill, h, here, html, isOwner, key, onEvents, path, renew, tell, Trouble } from "./studio.js";
import { gallery } from "./gallery.js";
import { picture, Stage } from "./stage.js";

const room = document.getElementById("room");
const stage = new Stage("The picture to name points in: click where the point is that is marked in the list");
const at = { pack: null, source: null, number: 0, track: null, point: 0 };
let colours = [];
let names = [];
let skeleton = [];
let state = null; // of the table
let shown = null; // the picture with its objects
let errors = null;
let drawn = { marks: true, lines: false, drag: null };
let contrast = 0;
const skipped = new Set();
const undone = [];
let queue = Promise.resolve();
let labelled = null; // points of another program's that the folder has
let waiting = 0;

const what = h("div.what", h("b.clip", ""), h("span.clip", ""));
const list = h("ul.points", { "aria-label": "Points" });
const adding = h("input", { placeholder: "nose, left eye, …", "aria-label": "Names of new points", id: "add" });
const verdict = h("div");
const hint = h("span.bubble", { "aria-live": "polite" }, "Opening…");
const strip = h("div.strip", { "aria-label": "Annotated pictures" });
const slider = h("input", { type: "range", min: 0, value: 0, "aria-label": "Frame" });
const packs = h("select", { "aria-label": "Pack" });
const sources = h("select", { "aria-label": "Film or folder" });
const why = h("p.small.soft");

const object = () => shown?.objects.find((each) => each.track === at.track) ?? shown?.objects[0];
const title = () => (shown ? `${shown.title} · ${shown.name}` : "");

function paint() {
  if (!shown) return;
  const mine = object();
  for (const each of shown.objects) {
    const current = each === mine;
    if (!each.whole || shown.objects.length > 1) stage.box(each.box, current ? "#fff" : "#8a9a98", current ? 2 : 1, shown.objects.length > 1 ? `object ${each.track}` : "");
    if (drawn.marks) for (const [index, [x, y]] of each.found.entries()) stage.dot([x, y], colours[index % colours.length], { radius: 3.5, alpha: 0.5, solid: false });
    const points = each.points ?? {};
    for (const [a, b] of skeleton) if (points[a] && points[b]) stage.line(points[a], points[b], "#fff", 0.7);
    if (current) names.forEach((name, index) => {
      if (points[name]) stage.dot(points[name], colours[index % colours.length], { radius: index === at.point ? 8 : 6, name: index === at.point || drawn.lines ? name : "" });
    });
  }
  if (drawn.drag?.from) stage.line(mine.points[drawn.drag.from], drawn.drag.to, "#ffd54a");
}
stage.paint = paint;

function showList() {
  const points = object()?.points;
  renew(list, names.map((name, index) => {
    const point = points?.[name];
    const error = errors?.points?.[name];
    const off = error?.error_box_percent !== undefined && error.error_box_percent !== null;
    return h("li", { "aria-current": index === at.point ? "true" : null, onclick: () => choose(index), "data-name": name },
      h("span.dot", { style: { background: colours[index % colours.length] } }),
      h("span.clip", name),
      h("span.small.num", { className: `small num ${off && error.error_px >= 0.8 * error.mean_shape_px ? "warn" : "soft"}`, title: off ? "off by so much of the object's box, in pictures left out; in brackets: the mean shape" : "" },
        off ? `${error.error_box_percent.toFixed(1)} % (${error.mean_shape_box_percent.toFixed(0)})` : error ? `${error.images} of ${state.fewest}` : ""),
      h("span.set", point ? "●" : points && name in points && point === null ? "–" : ""));
  }));
  const said = !names.length ? "Write the names of your points on the side" : !shown?.objects.length ? "No object in this picture: go on"
    : at.point < names.length ? `Click: ${names[at.point]}` : "All points are set";
  fill(hint, said);
}

function showVerdict() {
  const count = state?.rows.filter((row) => row.points).length ?? 0;
  const job = isOwner && errors?.ready && h("div.row", h("button.main", { onclick: () => run(false), id: "run" }, "Name the points"),
    h("button", { onclick: () => run(true), id: "learn", title: "For points that lie near no landmark, such as limbs: the network learns them, in five minutes" }, "and learn them"));
  let words;
  if (!names.length && labelled) words = h("div.note.stack.close", h("span", `This folder has points already (${labelled.layout}): ${labelled.names.join(", ")}.`), h("button.main", { onclick: bringIn, id: "bring" }, "Bring them in"));
  else if (!names.length) words = h("p.note", "Points are named in a few pictures; then the landmarks, which were found without labels, tell where they are in all others.");
  else if (errors?.enough) words = h("p.note", h("b.good", "Enough now. "), `Twice the pictures (${errors.half} to ${errors.pictures}) took ${Math.max(0, errors.gain * 100).toFixed(0)} % off the error; more hardly help.`);
  else if (errors?.doubt) words = h("p.note.warn", "The landmarks do not tell these points yet: ", `${errors.error_px.toFixed(1)} px off, the mean shape ${errors.mean_shape_px.toFixed(1)}. Name more pictures, or let them be learnt.`);
  else if (errors?.ready) words = h("p.note", errors.gain !== undefined ? `Twice the pictures took ${(errors.gain * 100).toFixed(0)} % off the error: a few more help.` : `Good for a first try; from ${10} pictures on this says whether more help.`);
  else if (!errors && count >= (state?.fewest ?? 5)) words = h("p.soft.small", "Working out how far the points are off …");
  else words = h("p.soft.small", `Each point is needed in ${state?.fewest ?? 5} pictures or more; 10 are better.`);
  const [unsure, of] = errors?.unsure ?? [0, 0];
  const shaky = unsure > of / 3 && h("p.note.warn", { id: "unsure" }, `${unsure} of the ${of} landmarks that were found without labels are unsure in most pictures, and so will these points be. `, h("a", { href: `/judge?pack=${encodeURIComponent(at.pack)}` }, "Judge them"), isOwner && [", or let them learn longer in ", h("a", { href: "/learn" }, "Learn")], ".");
  renew(verdict, h("div.stack.close", h("div.row", h("b", { id: "count" }, `${count} picture${count === 1 ? "" : "s"}`),
    errors?.error_box_percent !== undefined && h("span.soft.small.num", `off by ${errors.error_box_percent.toFixed(1)} % of the box when left out`)), words, shaky || null, job || null));
}

function showStrip() {
  const rows = (state?.rows ?? []).filter((row) => row.place && row.points);
  renew(strip, rows.map(({ place: [source, number] }) =>
    h("button", { onclick: () => go(source, number), title: `${source} ${number}`, "aria-current": source === at.source && number === at.number ? "true" : null, "aria-pressed": source === at.source && number === at.number ? "true" : "false" },
      h("img", { src: path("thumbnail", source, String(number)), alt: `${source} ${number}`, loading: "lazy" }))));
}

function show() {
  renew(what, h("b.clip", shown?.title ?? ""), h("span.clip", shown ? `${shown.name}${shown.objects.length > 1 ? `, object ${object().track}` : ""} of ${shown.count}` : ""));
  document.title = `Name · ${title()} · lmk studio`;
  html.dataset.number = loading ? "" : (shown?.number ?? "");
  if (shown) { slider.max = shown.count - 1; slider.value = shown.number; }
  showList();
  showVerdict();
  showStrip();
  stage.draw();
}

let latest = 0;
let loading = false; // meanwhile clicks are not for the picture that is still shown
async function go(source, number, { track = null, push = true } = {}) {
  const mine = ++latest;
  loading = true;
  fill(hint, "Opening…");
  try {
    await queue; // what was clicked is on the disk before the picture goes
    const [told, image] = await Promise.all([
      api(path("api", "name", at.pack, source, String(number))),
      picture(`${path("picture", source, String(number))}?width=2560`),
    ]);
    if (mine !== latest) return; // somebody has gone on since
    shown = told;
    Object.assign(at, { source, number });
    sources.value = source;
    at.track = (shown.objects.find((each) => each.track === track) ?? shown.objects[0])?.track ?? null;
    at.point = first(object()?.points);
    here({ pack: at.pack, source, number }, push);
    const only = object();
    stage.fitted = true;
    stage.show(image, shown.width, shown.height);
    if (only && !only.whole && only.box[2] < shown.width / 3) stage.lookAt(only.box, 2.2);
    if (shown.error) tell(shown.error, "bad");
  } finally {
    if (mine === latest) {
      loading = false;
      showList();
    }
  }
  show();
}

const first = (points) => {
  const index = names.findIndex((name) => !points || !(name in points) || points[name] === undefined);
  return index < 0 ? names.length : index;
};
function choose(index) {
  at.point = Math.max(0, Math.min(names.length - 1, index));
  show();
}

/** Change the points of the object that is shown, and the disk. */
function change(next, { undo = true } = {}) {
  const mine = object();
  if (!mine || loading) return;
  const place = { source: at.source, number: at.number, track: mine.track };
  const before = mine.saved !== undefined ? mine.saved : mine.points;
  if (undo) undone.push({ place, points: mine.points && { ...mine.points } });
  mine.points = next;
  mine.saved = before;
  save(mine, place);
  show();
}

function save(mine, place) {
  waiting += 1;
  tell("Saving…");
  queue = queue.then(async () => {
    const points = mine.points && { ...mine.points };
    try {
      const { points: now } = await api(path("api", "name", at.pack, place.source, String(place.number)), "PUT", { track: place.track, points, before: mine.saved ?? null });
      mine.saved = now;
      if (!--waiting) tell("Saved", "good");
      await refresh();
    } catch (error) {
      waiting -= 1;
      if (error instanceof Trouble && error.status === 409) differ(mine, place, error.now);
      else failed(error);
    }
  });
}

/** Somebody else has changed the same picture: show both. */
function differ(mine, place, now) {
  tell("Not saved: changed by somebody else", "bad");
  const shownAs = (point) => (point ? point.map((value) => value.toFixed(1)).join(", ") : "–");
  const rows = names.filter((name) => shownAs(mine.points?.[name]) !== shownAs(now?.[name])).map((name) => h("tr", h("td", name), h("td", shownAs(mine.points?.[name])), h("td", shownAs(now?.[name]))));
  ask("Somebody else has changed this picture", [h("p.soft", title()), h("div.wide", h("table", h("thead", h("tr", h("th", "point"), h("th", "yours"), h("th", "theirs"))), h("tbody", rows)))], [
    ["Take theirs", () => { mine.points = mine.saved = now; show(); tell("Saved", "good"); }],
    ["Keep mine", () => { mine.saved = now; save(mine, place); }, "main"],
  ]);
}

let judging = 0;
async function refresh() {
  state = await api(path("api", "name", at.pack));
  names = state.names;
  skeleton = state.skeleton;
  show();
  const mine = ++judging;
  setTimeout(async () => { // one judgement for a row of clicks
    if (mine !== judging) return;
    try {
      const told = await api(path("api", "name", at.pack, "errors"));
      if (mine === judging) { errors = told; html.dataset.judged = told.pictures; show(); }
    } catch (error) { failed(error); }
  }, 350);
}

function place(point) {
  const mine = object();
  if (!mine || at.point >= names.length) return;
  change({ ...(mine.points ?? {}), [names[at.point]]: point });
  at.point = first(mine.points);
  show();
}
function notVisible() {
  const mine = object();
  if (!mine || at.point >= names.length) return;
  change({ ...(mine.points ?? {}), [names[at.point]]: null });
  at.point = first(mine.points);
  show();
}
async function undo() {
  const last = undone.pop();
  if (!last) return tell("Nothing to undo");
  if (last.place.source !== at.source || last.place.number !== at.number) await go(last.place.source, last.place.number, { track: last.place.track });
  at.track = last.place.track;
  change(last.points, { undo: false });
  at.point = first(object().points);
  show();
}

async function next() {
  await queue;
  const query = [...skipped].map((each) => `without=${encodeURIComponent(each)}`).join("&");
  fill(hint, "Looking for the next picture…");
  const told = await api(`${path("api", "name", at.pack, "next")}?without=${encodeURIComponent(`${at.source}:${at.number}`)}&${query}`).finally(showList);
  if (told.next) {
    await go(told.next[0], told.next[1], { track: told.next[2] });
    if (shown.source === told.next[0] && shown.number === told.next[1]) fill(why, "Proposed: ", told.why, ".");
  } else tell(told.error ?? (told.done ? "All pictures that were looked at have points" : "Still looking for pictures…"), told.error ? "bad" : "");
}
function skip() {
  skipped.add(`${at.source}:${at.number}`);
  return next();
}
function step(by) {
  if (!shown) return;
  const number = Math.min(shown.count - 1, Math.max(0, at.number + by));
  if (number !== at.number) go(at.source, number, { track: at.track }).catch(failed);
}
/** The next picture without points, this way or that. */
function empty(by) {
  const done = new Set(state.rows.filter((row) => row.place?.[0] === at.source && row.points).map((row) => row.place[1]));
  let number = at.number + by;
  while (done.has(number)) number += by;
  if (number >= 0 && number < shown.count) go(at.source, number).catch(failed);
}
/** All pictures of the source to choose from; of a film one a second. */
function all() {
  const source = state.sources[at.source];
  const every = Math.max(1, Math.round(source.every));
  const done = new Set(state.rows.filter((row) => row.place?.[0] === at.source && row.points).map((row) => row.place[1]));
  const cell = (n) => {
    const marked = [...Array(every).keys()].some((k) => done.has(n * every + k));
    return { source: at.source, number: n * every, title: `${source.time ? "frame" : "picture"} ${n * every}`, mark: marked && "●", current: n === Math.floor(at.number / every) };
  };
  const grid = gallery(Math.ceil(source.pictures / every), Math.floor(at.number / every), cell, (n) => {
    dialog.close();
    go(at.source, n * every).catch(failed);
  });
  const dialog = ask(`${source.pictures} pictures`, [grid], [["Close", () => {}]]);
  dialog.classList.add("large");
}
function nextObject() {
  const all = shown?.objects ?? [];
  if (all.length < 2) return;
  at.track = all[(all.findIndex((each) => each.track === at.track) + 1) % all.length].track;
  at.point = first(object().points);
  show();
}

/** The names, changed: [new, was], …; the rest goes. */
async function rename(pairs) {
  try {
    await api(path("api", "name", at.pack, "names"), "PUT", { names: pairs.map(([name, was]) => ({ name, was })), before: names });
    tell("Saved", "good");
  } catch (error) {
    if (error.status === 409) tell("Somebody else has changed the names; look again", "bad");
    else failed(error);
    return refresh();
  }
  const renamed = (points) => points && Object.fromEntries(pairs.filter(([, was]) => was in points).map(([name, was]) => [name, points[was]]));
  for (const each of shown?.objects ?? []) {
    each.points = renamed(each.points);
    if (each.saved !== undefined) each.saved = renamed(each.saved);
  }
  await refresh();
  at.point = first(object()?.points);
  show();
}
async function add() {
  const fresh = adding.value.split(/[,;\n]+/).map((name) => name.trim()).filter((name) => name && !names.includes(name));
  if (!fresh.length) return;
  adding.value = "";
  await rename([...names.map((name) => [name, name]), ...fresh.map((name) => [name, null])]);
  stage.canvas.focus();
}
function edit() {
  const fields = names.map((name) => ({ name, input: h("input", { value: name, "aria-label": `Name of ${name}` }) }));
  const rows = fields.map((field) => h("div.row.tight", h("span.grow", field.input), h("button", { onclick: () => { field.gone = true; field.input.closest(".row").hidden = true; } }, "Remove")));
  ask("Names of the points", [h("div.stack.close", rows), h("p.small.soft", "Removing a point removes it from all pictures.")], [
    ["Leave", () => {}],
    ["Keep", () => rename(fields.filter((field) => !field.gone).map((field) => [field.input.value.trim(), field.name])), "main"],
  ]);
}

async function join(a, b) {
  const same = ([x, y]) => (x === a && y === b) || (x === b && y === a);
  const lines = skeleton.some(same) ? skeleton.filter((line) => !same(line)) : [...skeleton, [a, b]];
  try {
    skeleton = (await api(path("api", "name", at.pack, "skeleton"), "PUT", { lines, before: skeleton })).skeleton;
    tell("Saved", "good");
  } catch (error) { failed(error); await refresh(); }
  show();
}

/** The set point near a place, if any. */
function near(point, reach = 12) {
  const points = object()?.points ?? {};
  const away = (name) => Math.hypot(points[name][0] - point[0], points[name][1] - point[1]);
  const set = names.filter((name) => points[name]).sort((a, b) => away(a) - away(b));
  return set.length && away(set[0]) <= stage.reach(reach) ? set[0] : null;
}
stage.down = (point, event) => {
  if (loading || !shown?.objects.length) return false;
  const name = near(point);
  if (drawn.lines) {
    drawn.drag = name ? { from: name, to: point } : null;
    return true;
  }
  if (name && (event.pointerType === "mouse" || name === names[at.point] || at.point >= names.length)) drawn.drag = { move: name, start: point, points: { ...object().points } };
  else {
    const inside = shown.objects.find(({ box: [x, y, w, hgt] }) => point[0] >= x - 0.5 && point[1] >= y - 0.5 && point[0] < x + w && point[1] < y + hgt);
    if (inside && shown.objects.length > 1 && inside !== object() && !object().box.every((v, i) => v === inside.box[i])) { at.track = inside.track; at.point = first(inside.points); }
    drawn.drag = null;
    place(point);
  }
  return true;
};
stage.move = (point, event, taken) => {
  if (taken && drawn.drag?.from) drawn.drag.to = point;
  else if (taken && drawn.drag?.move) object().points = { ...drawn.drag.points, [drawn.drag.move]: point };
  else {
    stage.canvas.style.cursor = near(point) ? "grab" : "crosshair";
    return;
  }
  stage.draw();
};
stage.up = (point) => {
  const drag = drawn.drag;
  drawn.drag = null;
  if (drag?.from) {
    const to = near(point);
    if (to && to !== drag.from) join(drag.from, to);
    else stage.draw();
  } else if (drag?.move) {
    const mine = object();
    mine.points = drag.points;
    if (Math.hypot(point[0] - drag.start[0], point[1] - drag.start[1]) > stage.reach(2)) {
      mine.saved = mine.saved !== undefined ? mine.saved : { ...drag.points };
      change({ ...drag.points, [drag.move]: point });
    }
    choose(names.indexOf(drag.move));
  }
};

async function bringIn() {
  tell("Bringing them in…");
  try {
    const { pictures } = await api(path("api", "name", at.pack, "labels", at.source), "POST");
    tell(`${pictures} objects brought in`, "good");
    await refresh();
    const first_ = state.rows.find((row) => row.place)?.place;
    if (first_) await go(...first_);
  } catch (error) { failed(error); }
}
async function run(learn) {
  try {
    await queue;
    await api(path("api", "name", at.pack, "run"), "POST", { source: at.source, learn });
  } catch (error) { failed(error); }
}
function brighten() {
  contrast = (contrast + 1) % 4;
  stage.contrast = [1, 1.5, 2.2, 0.7][contrast];
  stage.draw();
}
function toggle(what, button) {
  drawn[what] = !drawn[what];
  button?.setAttribute("aria-pressed", drawn[what]);
  show();
}

async function start() {
  const told = await about();
  colours = told.colours;
  const usable = told.packs.filter((pack) => !pack.named);
  at.pack = asked().get("pack") ?? told.pack ?? usable.filter((pack) => !pack.ships).sort((a, b) => b.changed - a.changed)[0]?.name ?? usable[0]?.name;
  const base = told.packs.find((pack) => pack.name === at.pack && pack.named)?.base;
  if (base) at.pack = base;
  fill(packs, usable.map((pack) => h("option", { value: pack.name }, pack.name)));
  packs.value = at.pack;
  packs.onchange = () => { location.search = `?pack=${encodeURIComponent(packs.value)}`; };
  fill(sources, told.sources.map((source) => h("option", { value: source.key }, source.title)));
  sources.onchange = () => go(sources.value, 0).catch(failed);
  slider.oninput = () => go(at.source, Number(slider.value), { push: false }).catch(failed);
  adding.onkeydown = (event) => { if (event.key === "Enter") add(); };

  const marks = h("button", { "aria-pressed": "true", onclick: () => toggle("marks", marks), title: "Found landmarks (L)" }, "Landmarks");
  const lines = h("button", { "aria-pressed": "false", onclick: () => toggle("lines", lines), title: "Skeleton: drag from point to point (K)" }, "Skeleton");
  fill(room, h("div.work",
    h("div.place",
      h("div.above", what, h("label.field.hide-small", "Pack", packs), told.sources.length > 1 && h("label.field", "Source", sources)),
      h("div", { style: { display: "contents" } }, stage.element),
      h("div.below", slider, strip)),
    h("aside.side",
      h("div.row", h("button.main", { onclick: () => next().catch(failed), id: "next" }, "Next picture ", cap("Enter")), h("button", { onclick: () => skip().catch(failed) }, "Skip ", cap("s"))),
      h("div.stack.close", h("div.row.tight", h("h2.grow", "Points"), h("button.quiet", { onclick: edit, title: "Rename or remove points" }, "Edit")), list,
        h("div.row.tight", h("div.grow", { style: { display: "grid" } }, adding), h("button", { onclick: add }, "Add"))),
      h("div.row", h("button", { onclick: notVisible, title: "The point is not to be seen (X)" }, "Not visible ", cap("x")), h("button", { onclick: () => undo().catch(failed) }, "Undo ", cap("u"))),
      h("div.row", marks, lines, h("button", { onclick: brighten, title: "Contrast (C)" }, "Contrast"), h("button", { onclick: all, id: "all", title: "All pictures (G)" }, "All pictures")),
      verdict, // it and what follows change their heights: all else stays where it is
      why,
      h("div.row.small", "The table:", [["annotations.csv", "CSV"], ["coco.json", "COCO"], ["CollectedData_lmk.csv", "DeepLabCut"]].map(([name, words]) => h("a", { href: path("api", "name", at.pack, name), download: name }, words)), h("span.soft.clip", { id: "table" })))));
  stage.element.append(h("div.over", hint));

  key(["Enter"], "the next picture that is worth most", () => next().catch(failed));
  key(["s"], "skip this picture", () => skip().catch(failed));
  key(["ArrowRight", "."], "the next frame", () => step(1));
  key(["ArrowLeft", ","], "the frame before", () => step(-1));
  key(["Shift+ArrowRight"], "ten frames on", () => step(10));
  key(["Shift+ArrowLeft"], "ten frames back", () => step(-10));
  key(["]"], "the next picture without points", () => empty(1));
  key(["["], "the picture without points before", () => empty(-1));
  key(["ArrowDown"], "the next point", () => choose((at.point + 1) % names.length));
  key(["ArrowUp"], "the point before", () => choose((at.point + names.length - 1) % names.length));
  key(["1", "2", "3", "4", "5", "6", "7", "8", "9"], "the point of that number", (event) => choose(Number(event.key) - 1));
  key(["x", "Delete"], "the point is not to be seen", notVisible);
  key(["u", "Ctrl+z", "Backspace"], "undo", () => undo().catch(failed));
  key(["o"], "the next object", nextObject);
  key(["l"], "found landmarks, on and off", () => toggle("marks", marks));
  key(["k"], "skeleton: drag from point to point", () => toggle("lines", lines));
  key(["c"], "contrast", brighten);
  key(["g"], "all pictures", all);
  key(["+", "="], "nearer (or the wheel, or two fingers)", () => stage.zoom(1.4));
  key(["-"], "further away", () => stage.zoom(1 / 1.4));
  key(["0"], "the whole picture", () => stage.fit());

  await refresh();
  document.getElementById("table").textContent = state.table;
  const query = asked();
  const source = query.get("source") ?? told.sources[0]?.key;
  if (source && !names.length) labelled = await api(path("api", "name", at.pack, "labels", source));
  if (!source) return fill(room, h("div.page", h("p.note", "No picture was opened: ", h("code", "lmk studio film.mp4"))));
  if (query.has("number")) await go(source, Number(query.get("number")), { push: false });
  else {
    await go(source, 0, { push: false });
    const first = await api(path("api", "name", at.pack, "next"));
    if (first.next) await next();
  }
  html.dataset.ready = "yes";
}

addEventListener("popstate", () => {
  const query = asked();
  if (query.has("number")) go(query.get("source"), Number(query.get("number")), { push: false }).catch(failed);
});
addEventListener("beforeunload", (event) => { if (waiting) event.preventDefault(); });
let renamed = 0;
onEvents(({ jobs, scans }) => {
  html.dataset.candidates = scans[at.pack]?.found ?? 0;
  html.dataset.scanned = scans[at.pack]?.done ? "yes" : "no";
  const done = jobs.filter((job) => job.state === "done").length;
  if (done > renamed) {
    about(true);
    if (shown?.error) go(at.source, at.number, { track: at.track, push: false }).then(refresh).catch(failed); // what was missing may be there now
  }
  renamed = done;
});
start().catch(failed);
