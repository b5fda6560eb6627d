// Find: boxes of the objects in some frames; correct them, then let landmarks be learnt.

import { about, api, ask, asked, cap, failed, fill, h, here, html, isOwner, key, onEvents, path, tell } from "./studio.js";
import { picture, Stage } from "./stage.js";

const room = document.getElementById("room");
const stage = new Stage("A frame with its boxes: drag a box, its corners, or draw a new one");
const sources = h("select", { "aria-label": "Film or folder" });
const what = h("div.what");
const strip = h("div.strip", { "aria-label": "Frames" });
const slider = h("input", { type: "range", min: 0, value: 0, "aria-label": "Frame" });
const side = h("aside.side");
const hint = h("span.bubble");
const objects = h("input", { type: "number", min: 1, max: 64, placeholder: "as it looks", "aria-label": "Objects" });
const landmarks = h("input", { type: "number", min: 1, max: 64, value: 10, "aria-label": "Landmarks" });
const minutes = h("input", { type: "number", min: 1, max: 100000, value: 20, "aria-label": "Minutes" });
let colours = [];
let told = null;
let source = null;
let number = 0;
let boxes = [];
let saved = [];
let chosen = null; // number of an object
let drag = null;

stage.paint = () => {
  for (const box of boxes) {
    const mine = box.track === chosen;
    stage.box([box.x, box.y, box.w, box.h], colours[box.track % colours.length], mine ? 3 : 2, `object ${box.track}`);
    if (mine) for (const corner of corners(box)) stage.dot([corner[0] - 0.5, corner[1] - 0.5], colours[box.track % colours.length], { radius: 5 });
  }
  if (drag?.fresh) stage.box([drag.fresh.x, drag.fresh.y, drag.fresh.w, drag.fresh.h], "#fff", 2);
};
const corners = ({ x, y, w, h: hgt }) => [[x, y], [x + w, y], [x + w, y + hgt], [x, y + hgt]];

stage.down = ([px, py]) => {
  if (!told?.film) return false;
  const [x, y] = [px + 0.5, py + 0.5]; // edges, not centres
  const mine = boxes.find((box) => box.track === chosen);
  const reach = stage.reach(14);
  const corner = mine ? corners(mine).findIndex(([cx, cy]) => Math.hypot(cx - x, cy - y) < reach) : -1;
  if (corner >= 0) {
    drag = { box: mine, away: corners(mine)[(corner + 2) % 4], start: [x, y], was: { ...mine } };
    return true;
  }
  const inside = boxes.filter((box) => x >= box.x && y >= box.y && x <= box.x + box.w && y <= box.y + box.h).sort((a, b) => a.w * a.h - b.w * b.h)[0];
  if (inside) {
    chosen = inside.track;
    drag = { box: inside, move: [x - inside.x, y - inside.y], start: [x, y], was: { ...inside } };
  } else {
    chosen = null;
    drag = { away: [x, y], start: [x, y], fresh: { x, y, w: 0, h: 0 } };
  }
  show();
  return true;
};
stage.move = ([px, py], event, taken) => {
  if (!taken || !drag) return;
  const [x, y] = [px + 0.5, py + 0.5];
  const into = drag.fresh ?? drag.box;
  if (drag.move) Object.assign(into, { x: x - drag.move[0], y: y - drag.move[1] });
  else Object.assign(into, { x: Math.min(x, drag.away[0]), y: Math.min(y, drag.away[1]), w: Math.abs(x - drag.away[0]), h: Math.abs(y - drag.away[1]) });
  stage.draw();
};
stage.up = () => {
  const mine = drag;
  drag = null;
  if (mine.fresh) {
    if (Math.min(mine.fresh.w, mine.fresh.h) < stage.reach(6)) return stage.draw();
    let track = 0;
    while (boxes.some((box) => box.track === track)) track += 1;
    boxes.push({ track, ...mine.fresh });
    chosen = track;
  } else if (["x", "y", "w", "h"].every((name) => mine.box[name] === mine.was[name])) return show();
  keep();
};

let queue = Promise.resolve();
/** What was changed, to the disk. */
function keep() {
  const [at, mine] = [number, boxes.map((box) => ({ ...box }))];
  tell("Saving…");
  show();
  queue = queue.then(async () => {
    try {
      const now = (await api(path("api", "find", source, String(at)), "PUT", { boxes: mine, before: saved })).boxes;
      if (at === number) saved = now;
      tell("Saved", "good");
      told.found = true;
      emphasise();
    } catch (error) {
      if (error.status !== 409) return failed(error);
      tell("Not saved: changed by somebody else", "bad");
      ask("Somebody else has changed these boxes", [h("p", `Theirs: ${error.now.map((box) => `object ${box.track} at ${box.x.toFixed(0)}, ${box.y.toFixed(0)}, ${box.w.toFixed(0)} × ${box.h.toFixed(0)}`).join("; ") || "none"}.`)], [
        ["Take theirs", () => { boxes = error.now.map((box) => ({ ...box })); saved = error.now; show(); }],
        ["Keep mine", () => { saved = error.now; keep(); }, "main"]]);
    }
  });
}
function remove() {
  if (chosen === null) return;
  boxes = boxes.filter((box) => box.track !== chosen);
  chosen = null;
  keep();
}

let latest = 0;
async function go(to) {
  const mine = ++latest;
  await queue;
  to = Math.max(0, Math.min(told.count - 1, to));
  const [found, image] = await Promise.all([api(path("api", "find", source, String(to))), picture(`${path("picture", source, String(to))}?width=1600`)]);
  if (mine !== latest) return;
  number = to;
  saved = found.boxes;
  boxes = saved.map((box) => ({ ...box }));
  chosen = boxes.some((box) => box.track === chosen) ? chosen : (boxes[0]?.track ?? null);
  slider.value = number;
  here({ source, frame: number });
  stage.show(image, found.width, found.height);
  show();
}
function show() {
  html.dataset.frame = number;
  fill(what, h("b.clip", told.title), h("span", `${told.film ? "frame" : "picture"} ${number} of ${told.count}, ${boxes.length || "no"} object${boxes.length === 1 ? "" : "s"}`));
  fill(hint, !told.film ? "Images are learnt from whole" : boxes.length ? "Drag boxes or their corners; draw a new one beside them" : "Draw a box around an object, or let it be found");
  for (const button of strip.children) button.setAttribute("aria-pressed", Number(button.dataset.number) === number);
  stage.draw();
}
function step(by) {
  const places = told.numbers;
  const at = places.findIndex((place) => place >= number);
  go(places[Math.max(0, Math.min(places.length - 1, (places[at] === number ? at : at - (by > 0 ? 1 : 0)) + by))]).catch(failed);
}

const post = (what_, body) => api(path("api", "find", source, what_), "POST", body).then(() => tell("Started", "good"), failed);
function find(more = {}) {
  const go_ = () => post("run", { objects: Number(objects.value) || null, ...more });
  if (told.found) ask("Find again?", [h("p", "The boxes of this film are found anew; what you have corrected is gone.")], [["Leave", () => {}], ["Find again", go_, "main"]]);
  else go_();
}
function follow() {
  const first = boxes.find((box) => box.track === chosen) ?? boxes[0];
  if (number !== 0 || !first) { tell("Draw a box in the first frame: it is followed from there"); return go(0).catch(failed); }
  find({ start: [first.x, first.y, first.w, first.h] });
}
async function learn(anew = false) {
  if (told.learnt && !anew) return ask("Learn anew?", [h("p", "There are landmarks of this already; they are replaced.")], [["Leave", () => {}], ["Learn anew", () => learn(true), "main"]]);
  await queue;
  try {
    await api(path("api", "find", source, "learn"), "POST", { landmarks: Number(landmarks.value), minutes: Number(minutes.value), anew });
    location.href = "/learn";
  } catch (error) { failed(error); }
}

function sides() {
  const mayNot = !isOwner && h("p.note", "Only the owner of this studio starts commands.");
  fill(side, mayNot,
    told.film && h("div.stack.close", h("h2", "1. Where the objects are"),
      h("label.field", "Objects in a frame", objects),
      h("button", { onclick: () => find(), id: "find", disabled: !isOwner }, "Find what moves"),
      h("button", { onclick: follow, id: "follow", disabled: !isOwner }, "Follow my box"),
      h("p.small.soft", "What moves before a still camera is found by itself. Where the camera moves, draw the object's box in the first frame and let it be followed. Then look through the frames below and correct. Of boxes drawn by hand, draw the first and the last frame at least: between two of them a box moves evenly. They are in ", h("code", told.file), "; without any, they are found before anything is learnt.")),
    h("div.stack.close", h("h2", told.film ? "2. Landmarks" : "Landmarks"),
      h("div.row.tight", h("label.field.grow", "How many", landmarks), h("label.field.grow", "Minutes", minutes)),
      h("button.main", { onclick: () => learn(), id: "learn", disabled: !isOwner }, "Learn landmarks"),
      h("p.small.soft", told.film ? "Without labels, from frames spread over the film; then they are detected in all of it, to be seen in Watch. " : "Without labels; then they are detected in all pictures, to be seen in Watch. ", "Twenty minutes on two cores are enough for a first look; the room Learn shows how it goes.")),
    told.film && h("div.row", h("button", { onclick: remove, title: "Remove the box (Delete)" }, "Remove box ", cap("Delete"))));
  emphasise();
}
/** What is to be done first. */
function emphasise() {
  side.querySelector("#find")?.classList.toggle("main", !told.found);
}
async function open(key_) {
  source = key_;
  sources.value = source;
  told = await api(path("api", "find", source));
  slider.max = told.count - 1;
  fill(strip, told.numbers.map((at) => h("button", { onclick: () => go(at).catch(failed), "data-number": at, title: `frame ${at}` }, h("img", { src: path("thumbnail", source, String(at)), alt: `frame ${at}`, loading: "lazy" }))));
  sides();
  await go(Number(asked().get("frame") ?? 0));
}
async function start() {
  const project = await about();
  colours = project.colours;
  const first = asked().get("source") ?? project.sources[0]?.key;
  if (!first) { html.dataset.ready = "yes"; return fill(room, h("div.page", h("p.note", "No film was opened: ", h("code", "lmk studio film.mp4")))); }
  fill(sources, project.sources.map((each) => h("option", { value: each.key }, each.title)));
  sources.onchange = () => { here({ frame: null }); open(sources.value).catch(failed); };
  slider.oninput = () => go(Number(slider.value)).catch(failed);
  fill(room, h("div.work", h("div.place", h("div.above", what, project.sources.length > 1 && h("label.field", "Source", sources)), h("div", { style: { display: "contents" } }, stage.element), h("div.below", slider, strip)), side));
  stage.element.append(h("div.over", hint));
  key(["ArrowRight"], "the next of the frames below", () => step(1));
  key(["ArrowLeft"], "the one before", () => step(-1));
  key(["."], "the next frame", () => go(number + 1).catch(failed));
  key([","], "the frame before", () => go(number - 1).catch(failed));
  key(["Delete", "Backspace", "x"], "remove the chosen box", remove);
  key(["o"], "the next object", () => { const at = boxes.findIndex((box) => box.track === chosen); chosen = boxes[(at + 1) % boxes.length]?.track ?? null; show(); });
  key(["+", "="], "nearer", () => stage.zoom(1.4));
  key(["-"], "further away", () => stage.zoom(1 / 1.4));
  key(["0"], "the whole frame", () => stage.fit());
  await open(first);
  html.dataset.ready = "yes";
}
let done = 0;
onEvents(({ jobs }) => {
  const now = jobs.filter((job) => job.state === "done").length;
  if (now > done && html.dataset.ready && !drag) open(source).catch(failed);
  done = now;
});
start().catch(failed);
