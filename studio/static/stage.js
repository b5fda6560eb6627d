// A picture that can be zoomed, moved and brightened, and whatever a room draws over it.

import { h } from "./studio.js";

export class Stage {
  /** Rooms set: paint(context, stage); down, move, up(point, event): points in pixels of the picture,
   *  where (0, 0) is the centre of the top-left one. down returns whether it takes the pointer. */
  constructor(label) {
    this.canvas = h("canvas", { tabIndex: 0, role: "img", "aria-label": label });
    this.element = h("div.stage", this.canvas);
    this.context = this.canvas.getContext("2d");
    this.image = null;
    this.width = this.height = 1; // of the picture as it is, whatever was sent to look at
    this.scale = 1;
    this.left = this.top = 0; // of the picture, in CSS pixels of the canvas
    this.contrast = 1;
    this.fitted = true;
    this.paint = () => {};
    this.down = this.move = this.up = () => false;
    this.pointers = new Map();
    new ResizeObserver(() => this.resized()).observe(this.element);
    this.listen();
  }

  show(image, width, height) {
    const same = this.width === width && this.height === height;
    Object.assign(this, { image, width, height });
    if (!same || this.fitted) this.fit();
    else this.draw();
  }

  resized() {
    const ratio = devicePixelRatio || 1;
    const { clientWidth: w, clientHeight: hgt } = this.element;
    const [before, above] = this.size ?? [w, hgt];
    this.size = [w, hgt];
    this.canvas.width = Math.round(w * ratio);
    this.canvas.height = Math.round(hgt * ratio);
    if (this.fitted || !w || !before) return this.fit();
    this.left += (w - before) / 2; // what was in the middle stays there, and as much of it is seen
    this.top += (hgt - above) / 2;
    this.zoom(Math.min(w / before, hgt / above));
  }

  fit() {
    const { clientWidth: w, clientHeight: hgt } = this.element;
    if (!w || !hgt) return;
    this.scale = Math.min(w / this.width, hgt / this.height);
    this.left = (w - this.width * this.scale) / 2;
    this.top = (hgt - this.height * this.scale) / 2;
    this.fitted = true;
    this.draw();
  }

  /** Look at a box of the picture, with room around it. */
  lookAt([x, y, w, hgt], room = 1.5) {
    const { clientWidth, clientHeight } = this.element;
    this.scale = Math.min(clientWidth / (w * room), clientHeight / (hgt * room));
    this.left = clientWidth / 2 - (x + w / 2) * this.scale;
    this.top = clientHeight / 2 - (y + hgt / 2) * this.scale;
    this.fitted = false;
    this.draw();
  }

  zoom(factor, x = this.element.clientWidth / 2, y = this.element.clientHeight / 2) {
    const scale = Math.min(60, Math.max(0.02, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.draw();
  }

  /** Pixel centre of the picture -> CSS pixels of the canvas, and back. */
  toScreen([x, y]) {
    return [(x + 0.5) * this.scale + this.left, (y + 0.5) * this.scale + this.top];
  }
  toPicture([x, y]) {
    return [(x - this.left) / this.scale - 0.5, (y - this.top) / this.scale - 0.5];
  }

  draw() {
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      const { context: c, canvas } = this;
      const ratio = devicePixelRatio || 1;
      c.setTransform(1, 0, 0, 1, 0, 0);
      c.clearRect(0, 0, canvas.width, canvas.height);
      c.setTransform(ratio, 0, 0, ratio, 0, 0);
      if (this.image) {
        c.imageSmoothingEnabled = this.scale < 4;
        c.filter = this.contrast === 1 ? "none" : `contrast(${this.contrast}) brightness(${0.6 + 0.4 * this.contrast})`;
        c.drawImage(this.image, this.left, this.top, this.width * this.scale, this.height * this.scale);
        c.filter = "none";
      }
      this.paint(c, this);
    });
  }

  /** A mark at a point: a ring with a dark rim, so that it is seen on anything. */
  dot(point, colour, { radius = 6, alpha = 1, solid = true, name = "" } = {}) {
    const c = this.context;
    const [x, y] = this.toScreen(point);
    c.globalAlpha = alpha;
    c.beginPath();
    c.arc(x, y, radius, 0, 7);
    c.lineWidth = 4;
    c.strokeStyle = "rgb(0 0 0 / .65)";
    c.stroke();
    c.lineWidth = 2;
    c.strokeStyle = solid ? "#fff" : colour;
    if (solid) {
      c.fillStyle = colour;
      c.fill();
    }
    c.stroke();
    if (name) {
      c.font = "600 13px system-ui, sans-serif";
      c.lineWidth = 4;
      c.strokeStyle = "rgb(0 0 0 / .7)";
      c.strokeText(name, x + radius + 5, y + 4);
      c.fillStyle = "#fff";
      c.fillText(name, x + radius + 5, y + 4);
    }
    c.globalAlpha = 1;
  }

  line(a, b, colour, alpha = 0.9, width = 2) {
    const c = this.context;
    c.globalAlpha = alpha;
    c.beginPath();
    c.moveTo(...this.toScreen(a));
    c.lineTo(...this.toScreen(b));
    c.lineWidth = width + 2;
    c.strokeStyle = "rgb(0 0 0 / .5)";
    c.stroke();
    c.lineWidth = width;
    c.strokeStyle = colour;
    c.stroke();
    c.globalAlpha = 1;
  }

  /** A box x, y, w, h: edges, not centres. */
  box([x, y, w, hgt], colour, width = 2, name = "") {
    const c = this.context;
    const [left, top] = this.toScreen([x - 0.5, y - 0.5]);
    c.lineWidth = width + 2;
    c.strokeStyle = "rgb(0 0 0 / .5)";
    c.strokeRect(left, top, w * this.scale, hgt * this.scale);
    c.lineWidth = width;
    c.strokeStyle = colour;
    c.strokeRect(left, top, w * this.scale, hgt * this.scale);
    if (name) {
      c.font = "600 12px system-ui, sans-serif";
      c.fillStyle = colour;
      c.fillRect(left - 1, top - 18, c.measureText(name).width + 10, 18);
      c.fillStyle = "#000";
      c.fillText(name, left + 4, top - 5);
    }
  }

  /** How many pixels of the picture so many of the screen are. */
  reach(pixels) {
    return pixels / this.scale;
  }

  listen() {
    const at = (event) => [event.offsetX, event.offsetY];
    let panned = null;
    let taken = false;
    let pinch = 0;
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), ...at(event));
    }, { passive: false });
    this.canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.canvas.focus({ preventScroll: true });
      this.pointers.set(event.pointerId, at(event));
      if (this.pointers.size === 2) {
        taken = false;
        pinch = this.spread();
        return;
      }
      if (event.button === 1 || event.button === 2 || event.altKey) panned = at(event);
      else taken = this.down(this.toPicture(at(event)), event) !== false;
    });
    this.canvas.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      const before = this.pointers.get(event.pointerId);
      if (before) this.pointers.set(event.pointerId, [x, y]);
      if (this.pointers.size === 2 && before) {
        const spread = this.spread();
        const [a, b] = [...this.pointers.values()];
        this.left += (x - before[0]) / 2;
        this.top += (y - before[1]) / 2;
        this.zoom(spread / (pinch || spread), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
        pinch = spread;
      } else if (panned) {
        this.left += x - panned[0];
        this.top += y - panned[1];
        panned = [x, y];
        this.fitted = false;
        this.draw();
      } else this.move(this.toPicture([x, y]), event, taken);
    });
    const end = (event) => {
      this.pointers.delete(event.pointerId);
      if (panned) panned = null;
      else if (taken) this.up(this.toPicture(at(event)), event);
      taken = false;
    };
    this.canvas.addEventListener("pointerup", end);
    this.canvas.addEventListener("pointercancel", end);
  }

  spread() {
    const [a, b] = [...this.pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  }
}

/** Load a picture; resolves when it can be drawn. */
export async function picture(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `the picture does not come (${answer.status})`);
  return createImageBitmap(await answer.blob());
}
