// A picture or the camera -> the crop that detection cuts -> the model -> landmarks over it.

import * as ort from "./ort.webgpu.min.mjs";

const canvas = document.getElementById("picture");
const state = document.getElementById("state");
const model = await (await fetch("model.json")).json();
document.querySelector("h1").textContent = `Landmarks of ${model.category}`;

ort.env.wasm.numThreads = 1; // more would need headers that not every server sends
ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
const gpu = await navigator.gpu?.requestAdapter().catch(() => null);
const providers = gpu ? ["webgpu", "wasm"] : ["wasm"];
const session = await ort.InferenceSession.create("model.onnx", { executionProviders: providers });
state.textContent = `Ready, on ${gpu ? "the GPU" : "the processor"}`;

const cut = new OffscreenCanvas(model.size, model.size);
const cutter = cut.getContext("2d", { willReadFrequently: true });

/** The square about the whole picture, its border repeated outside: RGB bytes of size × size. */
function crop(source, width, height) {
  const side = Math.max(width, height) * model.crop_scale;
  const scale = model.size / side;
  const [w, h] = [width * scale, height * scale];
  const [left, top] = [(model.size - w) / 2, (model.size - h) / 2];
  cutter.imageSmoothingEnabled = scale !== 1;
  cutter.imageSmoothingQuality = "high";
  cutter.drawImage(source, 0, 0, width, 1, left, 0, w, top + 1);
  cutter.drawImage(source, 0, height - 1, width, 1, left, top + h - 1, w, top + 1);
  cutter.drawImage(source, 0, 0, width, height, left, top, w, h);
  if (left > 0) {
    const [first, last] = [Math.ceil(left), Math.floor(left + w) - 1];
    cutter.drawImage(cut, first, 0, 1, model.size, 0, 0, first, model.size);
    cutter.drawImage(cut, last, 0, 1, model.size, last, 0, model.size - last, model.size);
  }
  const rgba = cutter.getImageData(0, 0, model.size, model.size).data;
  const rgb = new Uint8Array(3 * model.size * model.size);
  for (let n = 0; n < model.size * model.size; n++) for (let c = 0; c < 3; c++) rgb[3 * n + c] = rgba[4 * n + c];
  return { rgb, side, x: (width - side) / 2, y: (height - side) / 2 };
}

/** Landmarks of a picture, [[x, y, score], …], in its pixels: the top-left one's centre is (0, 0). */
async function find(source, width, height) {
  const { rgb, side, x, y } = crop(source, width, height);
  const input = new ort.Tensor("uint8", rgb, [1, model.size, model.size, 3]);
  const found = await session.run({ [model.input]: input });
  const points = await found[model.landmarks].getData();
  const scores = await found[model.scores].getData();
  const scale = side / model.size;
  return model.names.map((_, k) => [(points[2 * k] + 0.5) * scale + x - 0.5, (points[2 * k + 1] + 0.5) * scale + y - 0.5, scores[k]]);
}

function draw(source, width, height, found) {
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext("2d");
  pen.drawImage(source, 0, 0);
  const radius = Math.max(3, Math.max(width, height) / 110);
  found.forEach(([x, y, score], k) => {
    pen.globalAlpha = 0.3 + 0.7 * score;
    pen.beginPath();
    pen.arc(x + 0.5, y + 0.5, radius, 0, 7);
    pen.fillStyle = model.colours[k];
    pen.fill();
    pen.lineWidth = radius / 3;
    pen.strokeStyle = "#000";
    pen.stroke();
  });
}

async function show(file) {
  stop();
  try {
    const picture = await createImageBitmap(file);
    const started = performance.now();
    const found = await find(picture, picture.width, picture.height);
    state.textContent = `${found.length} landmarks in ${(performance.now() - started).toFixed(0)} ms, on ${gpu ? "the GPU" : "the processor"}`;
    draw(picture, picture.width, picture.height, found);
    canvas.dataset.found = JSON.stringify(found);
  } catch (error) {
    state.textContent = `This picture cannot be used: ${error.message}`;
  }
}
document.getElementById("file").addEventListener("change", (event) => event.target.files[0] && show(event.target.files[0]));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) show(event.dataTransfer.files[0]);
});

let stream = null;
function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
}
const button = document.getElementById("camera");
button.disabled = !navigator.mediaDevices;
button.addEventListener("click", async () => {
  if (stream) return stop();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: true });
  } catch (error) {
    state.textContent = `No camera: ${error.message}`;
    return;
  }
  const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true, playsInline: true });
  await video.play();
  const next = async () => {
    if (!stream) return;
    draw(video, video.videoWidth, video.videoHeight, await find(video, video.videoWidth, video.videoHeight));
    requestAnimationFrame(next);
  };
  next();
});
document.documentElement.dataset.ready = "yes";
