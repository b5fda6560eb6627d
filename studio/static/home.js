// The beginning: what was opened, what there is, and what to do next.

import { about, asked, failed, fill, h, onEvents, path } from "./studio.js";

const room = document.getElementById("room");
const kinds = { true: "film", false: "images" };

async function show() {
  const { folder, sources, packs } = await about(true);
  const mine = packs.filter((pack) => !pack.ships);
  const steps = sources.length
    ? [
        ["Find", "find", "where the objects are", "Boxes over some pictures, to correct; then landmarks are learnt without labels."],
        ["Learn", "learn", "what is being learnt", "Loss, preview and time left of every run; stop and go on."],
        ["Judge", "judge", "which landmarks to trust", "Each landmark with its worst pictures; switch off what tells nothing."],
        ["Name", "name", "points of your own", "Five to twenty pictures, a few clicks each."],
        ["Watch", "watch", "a film with its points", "Go to the worst moments and correct them."],
        ["Ship", "ship", "files for elsewhere", "What this machine can make, how far off, how large, how fast."],
      ]
    : [];
  const rooms = new Set([...document.querySelectorAll("nav a")].map((a) => a.getAttribute("href").slice(1)));
  fill(room, h("div.home",
    h("div.stack.close", h("h1", "From pictures to named points"), h("p.soft", `In ${folder}. Results go to runs/ there; every step is a command too.`)),
    sources.length
      ? h("section.stack", h("h2", "Opened"), h("div.cards", sources.map((source) =>
          h("a.card", { href: `/${rooms.has("find") ? "find" : "name"}?source=${encodeURIComponent(source.key)}` },
            h("div.shot", h("img", { src: path("thumbnail", source.key, "0"), alt: "", loading: "lazy" })),
            h("div.row.tight", h("b.grow.clip", source.title), h("span.tag", kinds[source.film]), source.boxes && h("span.tag.good", "boxes"))))))
      : h("p.note", "No film and no image was found here. Give one: ", h("code", "lmk studio film.mp4"), "."),
    h("section.stack", h("h2", "Rooms"), h("div.cards", steps.filter(([, key]) => rooms.has(key)).map(([title, key, what, words]) =>
      h("a.card", { href: `/${key}` }, h("b", title, " ", h("span.soft", what)), h("span.soft.small", words))))),
    h("section.stack", h("h2", "Packs"), h("div.card.wide", h("table", h("tbody", [...mine, ...packs.filter((p) => p.ships)].map((pack) =>
      h("tr", h("td", h("b", pack.name)), h("td.soft", `${pack.landmarks.length} ${pack.named ? "named points" : "landmarks"}`),
        h("td", pack.ships ? h("span.tag", "ships") : pack.finished ? h("span.tag.good", "in runs/") : h("span.tag.warn", "not finished")),
        h("td.keep", pack.named ? null : h("a", { href: `/name?pack=${encodeURIComponent(pack.name)}` }, "name points"))))))))));
}

show().catch(failed);
let done = 0;
onEvents(({ jobs }) => {
  const now = jobs.filter((job) => job.state !== "running").length;
  if (now > done) show().catch(failed);
  done = now;
});
