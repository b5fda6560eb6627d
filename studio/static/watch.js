// Watch: a film with what was found in it; go to where it is worst, and correct that.

import { about, api, asked, cap, failed, fill, h, here, html, isOwner, key, onEvents, path, renew, tell } from "./studio.js";
import { picture, Stage } from "./stage.js";

const room = document.getElementById("room");
const stage = new Stage("The film with its landmarks: drag a point to correct it");
const slider = h("input", { type: "range", min: 0, value: 0, "aria-label": "Frame" });
const curve = h("canvas.curve", { "aria-label": "Scores by frame: click to go there", role: "img" });
const what = h("div.what");
const side = h("aside.side");
const hint = h("span.bubble");
const results = h("select", { "aria-label": "Results" });
let colours = [];
let told = null; // about the results
let rows = null; // of each frame: [{track, box, points: [[x, y, score], …]}]
let mean = null; // of each frame: the least mean score of its objects
let frame = 0;
let drag = null;
let chosen = null; // {track, index}: of points that lie over each other the one that is meant
const made = []; // what was corrected here, to be undone
let corrected = {}; // frame -> track -> points that people have set
let playing = 0;
let names = true;

// Frames: the one that is wanted last comes first, the next ones are fetched ahead.
const kept = new Map();
const KEPT = 90;
let busy = 0;
let ahead = 0;
function width() {
  return Math.min(1280, Math.max(480, Math.ceil((stage.element.clientWidth * devicePixelRatio) / 160) * 160));
}
async function fetched(number) {
  if (!kept.has(number)) {
    const bitmap = picture(`${path("picture", told.source, String(number))}?width=${width()}`);
    kept.set(number, bitmap);
    bitmap.catch(() => kept.delete(number));
    for (const old of kept.keys()) {
      if (kept.size <= KEPT) break;
      if (Math.abs(old - number) > 8) { kept.get(old)?.then((image) => image.close(), () => {}); kept.delete(old); }
    }
  }
  return kept.get(number);
}
async function show(number) {
  const before = frame;
  frame = Math.max(0, Math.min(told.count - 1, number));
  slider.value = frame;
  ahead = frame >= before ? 1 : -1;
  if (busy) return;
  busy = 1;
  try {
    for (let at = -1; at !== frame;) {
      at = frame;
      const image = await fetched(at);
      stage.show(image, ...(await size(at)));
      now(at);
    }
  } finally { busy = 0; }
  for (let n = 1; n <= 6; n++) {
    const next = frame + n * ahead;
    if (next >= 0 && next < told.count) fetched(next).catch(() => {});
  }
}
// Pictures are sent small; the points are in pixels of the frame as it is.
let whole = null; // of a film all are of one size
async function size(number) {
  if (whole && told.film) return whole;
  const { width: w, height: hgt } = await api(path("api", "size", told.source, String(number)));
  return (whole = [w, hgt]);
}
function now(at) {
  html.dataset.frame = at;
  here({ results: results.value, frame: at });
  const time = (at / told.rate).toFixed(2);
  renew(what, h("b.clip", told.title), h("span.num", told.film ? `frame ${at} of ${told.count}, ${time} s` : `picture ${at} of ${told.count}`));
  stage.draw();
  drawCurve();
}

stage.paint = () => {
  if (!rows) return;
  for (const each of rows[html.dataset.frame] ?? []) {
    const own = corrected[html.dataset.frame]?.[each.track] ?? {};
    const points = each.points.map(([x, y, score], index) => (drag?.track === each.track && drag.index === index ? [...drag.to, 1] : own[told.names[index]] ? [...own[told.names[index]], 1] : [x, y, score]));
    if (Object.keys(rows.tracks).length > 1) stage.box(each.box, colours[each.track % colours.length], 1.5, `object ${each.track}`);
    const of = Object.fromEntries(told.names.map((name, index) => [name, points[index]]));
    for (const [a, b] of told.skeleton) if (of[a] && of[b]) stage.line(of[a], of[b], "#fff", 0.6);
    points.forEach(([x, y, score], index) => {
      const mine = chosen?.track === each.track && chosen.index === index;
      if (Number.isFinite(x)) stage.dot([x, y], colours[index % colours.length], { radius: own[told.names[index]] || mine ? 8 : 5.5, alpha: mine ? 1 : 0.35 + 0.65 * score, name: names || mine ? told.names[index] : "" });
    });
  }
};

function drawCurve() {
  const ratio = devicePixelRatio || 1;
  const [w, hgt] = [curve.clientWidth, curve.clientHeight];
  if (!w || !mean) return;
  if (curve.width !== Math.round(w * ratio)) { curve.width = Math.round(w * ratio); curve.height = Math.round(hgt * ratio); }
  const c = curve.getContext("2d");
  const style = getComputedStyle(html);
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, w, hgt);
  const x = (at) => 4 + (at / Math.max(1, told.count - 1)) * (w - 8);
  const y = (score) => hgt - 6 - score * (hgt - 12);
  c.strokeStyle = style.getPropertyValue("--line");
  c.lineWidth = 1;
  c.beginPath(); c.moveTo(0, y(0.5)); c.lineTo(w, y(0.5)); c.stroke();
  for (const [index, track] of Object.keys(rows.tracks).entries()) {
    const list = rows.tracks[track];
    c.strokeStyle = index ? colours[track % colours.length] : style.getPropertyValue("--accent");
    c.lineWidth = 1.5;
    c.beginPath();
    // Long films have more frames than the curve has pixels: the least of each pixel is drawn.
    let last = -1, least = 1, begun = false;
    for (const [at, score] of list) {
      const px = Math.round(x(at));
      if (px !== last && last >= 0) { begun ? c.lineTo(last, y(least)) : c.moveTo(last, y(least)); begun = true; least = 1; }
      last = px;
      least = Math.min(least, score);
    }
    if (last >= 0) begun ? c.lineTo(last, y(least)) : c.moveTo(last, y(least));
    c.stroke();
  }
  c.fillStyle = style.getPropertyValue("--warn");
  for (const moment of told.moments) { c.beginPath(); c.arc(x(moment.frame), y(mean[moment.frame] ?? 0), 3, 0, 7); c.fill(); }
  c.fillStyle = style.getPropertyValue("--ink");
  c.fillRect(x(frame) - 0.75, 0, 1.5, hgt);
}
function toCurve(event) {
  if (event.type === "pointerdown") curve.setPointerCapture(event.pointerId);
  else if (!event.buttons) return;
  show(Math.round(((event.offsetX - 4) / (curve.clientWidth - 8)) * (told.count - 1))).catch(failed);
}
curve.addEventListener("pointerdown", toCurve);
curve.addEventListener("pointermove", toCurve);

/** The points within reach, the nearest first. */
function near(point, reach = 14) {
  const found = [];
  for (const each of rows?.[html.dataset.frame] ?? []) {
    each.points.forEach(([x, y], index) => {
      const own = corrected[html.dataset.frame]?.[each.track]?.[told.names[index]];
      const away = Math.hypot((own?.[0] ?? x) - point[0], (own?.[1] ?? y) - point[1]);
      if (away <= stage.reach(reach)) found.push({ track: each.track, index, away });
    });
  }
  return found.sort((a, b) => a.away - b.away);
}
const same = (a, b) => a?.track === b?.track && a?.index === b?.index;
/** The next point of the frame, this way or that. */
function choose(by) {
  const all = (rows?.[html.dataset.frame] ?? []).flatMap(({ track, points }) => points.map(([x], index) => ({ track, index, x }))).filter(({ x }) => Number.isFinite(x));
  if (!all.length) return;
  const now_ = all.findIndex((each) => same(each, chosen));
  const { track, index } = all[(now_ + by + all.length + (now_ < 0 && by < 0 ? 1 : 0)) % all.length];
  chosen = { track, index };
  stage.draw();
}
stage.down = (point) => {
  const found = near(point);
  if (!found.length) { chosen = null; stage.draw(); return false; }
  if (!told.base) { tell("Name points first: only points of your own can be corrected"); return false; }
  stop();
  drag = { ...(found.find((each) => same(each, chosen)) ?? found[0]), to: point, start: point, found };
  return true;
};
stage.move = (point, event, taken) => {
  if (taken && drag) { drag.to = point; stage.draw(); }
  else stage.canvas.style.cursor = near(point).length ? "grab" : "default";
};
stage.up = (point) => {
  const mine = drag;
  drag = null;
  if (!mine) return;
  if (Math.hypot(point[0] - mine.start[0], point[1] - mine.start[1]) > stage.reach(2)) correct(mine, point).catch(failed);
  else { // clicked again: the next of those that lie there
    const { track, index } = mine.found[(mine.found.findIndex((each) => same(each, chosen)) + 1) % mine.found.length];
    chosen = { track, index };
  }
  stage.draw();
};

/** A corrected point joins the annotations: the same table that Name writes. */
async function correct({ track, index }, point) {
  const number = Number(html.dataset.frame);
  const was = await set(number, track, told.names[index], point);
  made.push([number, track, told.names[index], was]);
  sides();
  tell("Saved: it joins the annotations", "good");
}
async function undo() {
  const last = made.pop();
  if (!last) return tell("Nothing to undo");
  await show(last[0]);
  await set(...last);
  sides();
  tell("Saved: as it was before", "good");
}
/** Set a point of an object in a frame, or take it away; gives what it was. */
async function set(number, track, name, point) {
  const own = ((corrected[number] ??= {})[track] ??= {});
  if (point) own[name] = point;
  else delete own[name];
  stage.draw();
  tell("Saving…");
  const where = path("api", "name", told.base, told.source, String(number));
  const object = (await api(where)).objects.find((each) => each.track === track);
  if (!object) throw new Error(`object ${track} has no box in this frame`);
  const points = { ...(object.points ?? {}), [name]: point };
  if (!point) delete points[name];
  await api(where, "PUT", { track, points: Object.keys(points).length ? points : null, before: object.points });
  return object.points?.[name];
}
async function again() {
  try {
    await api(path("api", "name", told.base, "run"), "POST", { source: told.source });
  } catch (error) { failed(error); }
}

function sides() {
  const count = Object.values(corrected).reduce((sum, tracks) => sum + Object.values(tracks).reduce((all, points) => all + Object.keys(points).length, 0), 0);
  const kinds = { "low score": "low score", jump: "jump", swap: "objects swapped" };
  renew(side,
    h("div.row", h("button.main", { onclick: () => worst(1), id: "worst" }, "Next bad moment ", cap("n")), h("button", { onclick: play }, "Play ", cap(" "))),
    told.base
      ? h("div.note.stack.close", h("span", "Drag a point to where it belongs: it joins the annotations. Of points that lie over each other, ", cap("]"), " or another click takes the next."),
          h("b", { id: "corrected" }, `${count} corrected`),
          h("button", { onclick: () => undo().catch(failed), id: "undo", disabled: !made.length }, "Undo ", cap("u")),
          isOwner && h("button", { onclick: again, id: "again", disabled: !count }, "Name and detect again"))
      : h("p.note", "These are landmarks without names. ", h("a", { href: "/name" }, "Name points"), " to correct them here."),
    h("a.button", { href: path("api", "watch", results.value, "landmarks.csv"), download: `${results.value}.csv`, id: "download" }, "Download the table (CSV)"),
    h("div.stack.close", h("h2", `Worst moments`), told.moments.length
      ? h("ul.points", { "aria-label": "Worst moments" }, told.moments.map((moment) =>
          h("li", { onclick: () => look(moment), "data-frame": moment.frame, tabIndex: 0 },
            h("span.dot", { style: { background: moment.kind === "low score" ? "var(--warn)" : "var(--bad)" } }),
            h("span.clip", `${kinds[moment.kind]}${moment.name ? `: ${moment.name}` : ""}`), h("span.small.soft.num", `frame ${moment.frame}`), h("span"))))
      : h("p.soft", "None stands out.")));
}

function look({ frame: at, track, name }) {
  if (name) chosen = { track, index: told.names.indexOf(name) };
  if (at !== frame) history.pushState(null, "", location.href); // back goes to where one was before
  show(at).catch(failed);
}
/** The moments in the order of the list, from the one after the frame that is shown. */
let visited = -1;
function worst(by) {
  if (!told.moments.length) return;
  visited = (visited + by + told.moments.length) % told.moments.length;
  look(told.moments[visited]);
}
function stop() {
  clearInterval(playing);
  playing = 0;
}
function play() {
  if (playing) return stop();
  if (frame >= told.count - 1) frame = 0;
  playing = setInterval(() => {
    if (busy) return;
    if (frame >= told.count - 1) stop();
    else show(frame + 1).catch(failed);
  }, 1000 / told.rate);
}

async function load(key_) {
  stop();
  told = await api(path("api", "watch", key_));
  const answer = await fetch(path("api", "watch", key_, "data"));
  if (!answer.ok) throw new Error("the results do not come");
  const data = await answer.arrayBuffer();
  const numbers = new Int32Array(data, 0, 2 * told.rows);
  const values = new Float32Array(data, 8 * told.rows);
  const each = 4 + 3 * told.names.length;
  rows = { tracks: {} };
  mean = {};
  for (let n = 0; n < told.rows; n++) {
    const [at, track] = [numbers[2 * n], numbers[2 * n + 1]];
    const row = values.subarray(n * each, (n + 1) * each);
    const points = told.names.map((_, k) => [row[4 + 3 * k], row[5 + 3 * k], row[6 + 3 * k]]);
    const score = points.reduce((sum, point) => sum + (point[2] || 0), 0) / points.length;
    (rows[at] ??= []).push({ track, box: [...row.subarray(0, 4)], points });
    (rows.tracks[track] ??= []).push([at, score]);
    mean[at] = Math.min(mean[at] ?? 1, score);
  }
  corrected = told.corrected;
  chosen = null;
  made.length = 0;
  visited = -1;
  kept.clear();
  slider.max = told.count - 1;
  whole = null;
  sides();
  fill(hint, told.base ? "Drag a point to correct it" : "Landmarks without names");
  await show(Number(asked().get("frame") ?? 0));
  html.dataset.ready = "yes";
  html.dataset.rows = told.rows;
}

let listed = [];
async function list() {
  listed = await api("/api/watch");
  const titles = Object.fromEntries((await about()).sources.map((source) => [source.key, source.title]));
  fill(results, listed.map((each) => h("option", { value: each.key }, `${each.key} (${titles[each.source]})`)));
}
async function start() {
  colours = (await about()).colours;
  await list();
  if (!listed.length) {
    html.dataset.ready = "yes";
    return fill(room, h("div.page", h("div.stack.close", h("h1", "Nothing to watch yet"), h("p.soft", "Name points and press “Name the points”: the film is then detected too. Or detect it on the command line: ", h("code", "lmk detect film.mp4"), "."))));
  }
  const view = h("button", { "aria-pressed": "true", onclick: () => { names = !names; view.setAttribute("aria-pressed", names); stage.draw(); } }, "Names");
  fill(room, h("div.work", h("div.place", h("div.above", what, view, h("label.field", "Results", results)), h("div", { style: { display: "contents" } }, stage.element), h("div.below", slider, curve)), side));
  stage.element.append(h("div.over", hint));
  results.onchange = () => load(results.value).catch(failed);
  slider.oninput = () => show(Number(slider.value)).catch(failed);
  new ResizeObserver(drawCurve).observe(curve);
  addEventListener("themed", drawCurve);
  key([" "], "play, stop", play);
  key(["ArrowRight", "."], "the next frame", () => show(frame + 1).catch(failed));
  key(["ArrowLeft", ","], "the frame before", () => show(frame - 1).catch(failed));
  key(["Shift+ArrowRight"], "ten frames on", () => show(frame + 10).catch(failed));
  key(["Shift+ArrowLeft"], "ten frames back", () => show(frame - 10).catch(failed));
  key(["n"], "the next bad moment", () => worst(1));
  key(["p"], "the bad moment before", () => worst(-1));
  key(["]"], "the next point, to drag it from under others", () => choose(1));
  key(["["], "the point before", () => choose(-1));
  key(["u", "Ctrl+z"], "undo the last correction", () => undo().catch(failed));
  key(["l"], "names, on and off", () => view.click());
  key(["+", "="], "nearer", () => stage.zoom(1.4));
  key(["-"], "further away", () => stage.zoom(1 / 1.4));
  key(["0"], "the whole picture", () => stage.fit());
  const wanted = asked().get("results");
  const bySource = listed.find((each) => each.source === asked().get("source"))?.key;
  results.value = listed.some((each) => each.key === wanted) ? wanted : (bySource ?? listed[0].key);
  await load(results.value);
}
addEventListener("popstate", () => {
  const wanted = asked().get("results");
  if (!told) return;
  if (wanted !== results.value && listed.some((each) => each.key === wanted)) { results.value = wanted; load(wanted).catch(failed); }
  else show(Number(asked().get("frame") ?? 0)).catch(failed);
});
let done = 0;
onEvents(async ({ jobs }) => {
  const now_ = jobs.filter((job) => job.state === "done").length;
  if (now_ > done && html.dataset.ready) {
    const before = results.value;
    if (!listed.length) await start();
    else { await list(); results.value = listed[0].key; await load(listed[0].key || before); }
  }
  done = now_;
});
start().catch(failed);
