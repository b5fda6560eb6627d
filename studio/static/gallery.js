// All pictures of a source, however many: only the rows in sight are elements.

import { fill, h, path } from "./studio.js";

const CELL = 132; // CSS pixels, with the gap

/** A grid of `count` thumbnails; cell(n): {source, number, title, mark}, pick(n): one was clicked. */
export function gallery(count, first, cell, pick) {
  const inside = h("div.inside");
  const element = h("div.gallery", { tabIndex: 0, role: "list", "aria-label": "All pictures" }, inside);
  const columns = () => Math.max(1, Math.floor(element.clientWidth / CELL));
  const made = new Map(); // number in the grid -> its element
  let across = 0;
  function show() {
    if (!element.clientWidth) return;
    if (across !== columns()) {
      across = columns();
      made.clear();
      fill(inside);
      inside.style.height = `${Math.ceil(count / across) * CELL}px`;
    }
    const from = Math.max(0, Math.floor(element.scrollTop / CELL) - 2) * across;
    const to = Math.min(count, (Math.ceil((element.scrollTop + element.clientHeight) / CELL) + 2) * across);
    for (const [n, each] of made) if (n < from || n >= to) { each.remove(); made.delete(n); }
    for (let n = from; n < to; n++) {
      if (made.has(n)) continue;
      const { source, number, title, mark, current } = cell(n);
      const place = { left: `${(n % across) * CELL}px`, top: `${Math.floor(n / across) * CELL}px` };
      const each = h("button", { style: place, title, onclick: () => pick(n), role: "listitem", "data-n": n, "aria-current": current ? "true" : null },
        h("img", { src: path("thumbnail", source, String(number)), alt: title }), mark && h("span.tag.good", mark));
      made.set(n, each);
      inside.append(each);
    }
  }
  let asked = 0;
  element.addEventListener("scroll", () => { asked ||= requestAnimationFrame(() => { asked = 0; show(); }); });
  new ResizeObserver(() => {
    const isNew = !across;
    show();
    if (isNew && across) { element.scrollTop = (Math.floor(first / across) - 1) * CELL; show(); }
  }).observe(element);
  return element;
}
