"use strict";

// Numbers and colours. This part needs no document, so it can be tested without a browser.

// Base64 to little-endian 16-bit steps: 0 to 65535 stand for 0 to the largest weight of a map.
function decode(base64) {
  const bytes = atob(base64);
  const steps = new Uint16Array(bytes.length / 2);
  for (let i = 0; i < steps.length; i++) steps[i] = bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8);
  return steps;
}

const ROLLOUT = -1;

// Weights of one head of one layer, Float64Array [T * S]. Head -1 is the mean over heads, layer ROLLOUT the rollout
// through all layers.
function attentionMap(data, layer, head) {
  if (layer === ROLLOUT) return rolloutMap(data, head);
  const [, heads, queries, keys] = data.shape;
  const size = queries * keys;
  const map = new Float64Array(size);
  const chosen = head < 0 ? Array.from({length: heads}, (_, n) => n) : [head];
  for (const n of chosen) {
    const index = layer * heads + n;
    const step = data.largest[index] / 65535 / chosen.length;
    for (let i = 0; i < size; i++) map[i] += data.steps[index * size + i] * step;
  }
  return map;
}

// Rollout: the product of 0.5 A + 0.5 I over the layers, the share of each input word in each output.
function rolloutMap(data, head) {
  const [layers, , count] = data.shape;
  let result = null;
  for (let layer = 0; layer < layers; layer++) {
    const withResidual = attentionMap(data, layer, head).map((weight, i) => weight / 2 + (i % (count + 1) === 0 ? 0.5 : 0));
    result = result === null ? withResidual : product(withResidual, result, count);
  }
  return result;
}

function product(a, b, count) {
  const result = new Float64Array(count * count);
  for (let i = 0; i < count; i++) {
    for (let k = 0; k < count; k++) {
      const factor = a[i * count + k];
      if (factor) for (let j = 0; j < count; j++) result[i * count + j] += factor * b[k * count + j];
    }
  }
  return result;
}

// Whether every row sums to at most 1 (rows of sigmoid attention may exceed 1). 2^-7 is the epsilon of bfloat16.
function rowsAreShares(map, keys) {
  for (let first = 0; first < map.length; first += keys) {
    let sum = 0;
    for (let s = 0; s < keys; s++) sum += map[first + s];
    if (sum > 1 + 2 ** -7) return false;
  }
  return true;
}

// Mean entropy of the rows that attend to something, in nats; null if a row sums to more than 1 or all are empty.
function entropyOf(map, keys) {
  if (!rowsAreShares(map, keys)) return null;
  let total = 0, rows = 0;
  for (let first = 0; first < map.length; first += keys) {
    let row = 0, any = false;
    for (let s = 0; s < keys; s++) {
      const weight = map[first + s];
      if (weight > 0) { row -= weight * Math.log(weight); any = true; }
    }
    if (any) { total += Math.max(row, 0); rows += 1; }
  }
  return rows ? total / rows : null;
}

function largestWeight(map) {
  let largest = 0;
  for (const weight of map) if (weight > largest) largest = weight;
  return largest;
}

// A weight with four decimals; a smaller positive one is not written as 0.
function number(weight) {
  return weight > 0 && weight < 0.00005 ? "< 0.0001" : weight.toFixed(4);
}

function shorten(text, longest) {
  const letters = Array.from(text);
  return letters.length <= longest ? text : letters.slice(0, longest - 1).join("") + "…";
}

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.trim().slice(i, i + 2), 16));
}

function blend(low, high, share) {
  return low.map((c, i) => Math.round(c + (high[i] - c) * Math.min(1, Math.max(0, share))));
}

function css(colour) {
  return `rgb(${colour.join(",")})`;
}

// Black or white, whichever has more contrast to the background by WCAG 2.
function textColourOn(colour) {
  const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}

function clamp(x, low, high) {
  return Math.min(high, Math.max(low, x));
}

// The cell that an arrow key leads to in a map of queries x keys; null for other keys.
function moveCell(key, query, keyIndex, queries, keys) {
  const steps = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  if (!(key in steps)) return null;
  return [clamp(query + steps[key][0], 0, queries - 1), clamp(keyIndex + steps[key][1], 0, keys - 1)];
}

// Largest side of a canvas in pixels of the screen. Browsers paint nothing above 16,384 squared, some not above 11,180.
const MAX_SIDE = 8192;
const MAX_LABEL = 512;

// The size of a cell in CSS pixels, so that a map of `count` cells and its labels fits on a canvas.
function cellSize(count) {
  return Math.min(clamp(Math.floor(640 / count), 9, 34), (MAX_SIDE - MAX_LABEL) / count);
}

// The page.

function start(data) {
  const [layers, heads, queries, keys] = data.shape;
  const byId = (id) => document.getElementById(id);
  const state = {layer: 0, head: 0, query: 0, key: null, fixed: false};
  const canvas = byId("map");
  const cell = cellSize(Math.max(queries, keys));
  const letters = clamp(Math.floor(cell * 0.8), 8, 13);
  const labelStep = Math.ceil((letters + 1) / cell);
  // The colours of the map, one pixel for each weight: painted once for each choice, and then scaled.
  const pixels = document.createElement("canvas");
  let map, largest, colours, left, top;

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    colours = {low: rgb(read("--low")), high: rgb(read("--high")), ink: read("--ink"), mark: read("--mark"), line: read("--line")};
  }

  const colour = (weight, most) => blend(colours.low, colours.high, most > 0 ? weight / most : 0);

  function option(select, value, text) {
    const entry = document.createElement("option");
    entry.value = value;
    entry.textContent = text;
    select.append(entry);
  }

  function makeWords(parent, tokens, tag) {
    const elements = tokens.map((token, i) => {
      const word = document.createElement(tag);
      word.textContent = token;
      word.dataset.index = i;
      parent.append(word);
      return word;
    });
    parent.addEventListener("mousemove", (event) => {
      const word = event.target.closest("[data-index]");
      if (word) point(tag, Number(word.dataset.index));
    });
    return elements;
  }

  function point(tag, index) {
    if (tag === "span") state.key = index;
    else if (!state.fixed) state.query = index;
    redraw();
  }

  function toggle(query) {
    state.fixed = !(state.fixed && state.query === query);
    state.query = query;
    redraw();
  }

  function releaseRow() {
    state.fixed = false;
    redraw();
  }

  // Empty a canvas and give it a size in CSS pixels. Its pixels are those of the screen, so that lines are sharp, but
  // not more than browsers draw.
  function resizeCanvas(target, width, height) {
    const ratio = Math.min(window.devicePixelRatio || 1, MAX_SIDE / Math.max(width, height));
    const size = [Math.floor(width * ratio), Math.floor(height * ratio)];
    // Setting a size, even the same, allocates the pixels anew.
    if (target.width !== size[0] || target.height !== size[1]) [target.width, target.height] = size;
    target.style.width = width + "px";
    target.style.height = height + "px";
    const pen = target.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    return pen;
  }

  function drawMap() {
    const font = `${letters}px ${getComputedStyle(document.body).fontFamily}`;
    const pen = canvas.getContext("2d");
    pen.font = font;
    const widest = (tokens) => Math.ceil(tokens.reduce((most, token) => Math.max(most, pen.measureText(shorten(token, 18)).width), 0));
    left = widest(data.queries) + 12;
    top = widest(data.keys) + 12;
    const paint = resizeCanvas(canvas, left + keys * cell + 2, top + queries * cell + 2);
    paint.font = font;
    paint.imageSmoothingEnabled = false;
    paint.drawImage(pixels, left, top, keys * cell, queries * cell);
    drawLabels(paint);
    paint.strokeStyle = colours.line;
    paint.lineWidth = 0.5;
    for (let s = 1; cell > 14 && s < keys; s++) paint.strokeRect(left + s * cell, top, 0, queries * cell);
    for (let t = 1; cell > 14 && t < queries; t++) paint.strokeRect(left, top + t * cell, keys * cell, 0);
    paint.lineWidth = 1;
    paint.strokeRect(left, top, keys * cell, queries * cell);
    paint.strokeStyle = colours.mark;
    paint.lineWidth = state.fixed ? 3 : 1.5;
    paint.strokeRect(left, top + state.query * cell, keys * cell, cell);
    if (state.key !== null) {
      paint.lineWidth = 2;
      paint.strokeRect(left + state.key * cell, top + state.query * cell, cell, cell);
    }
  }

  // Labels of all words, or of every labelStep-th where cells are smaller than letters; always that of the chosen one.
  function drawLabels(paint) {
    paint.textBaseline = "middle";
    const ink = (here) => { paint.fillStyle = here ? colours.mark : colours.ink; };
    const isShown = (i, chosen) => i === chosen || (i % labelStep === 0 && (chosen === null || Math.abs(i - chosen) >= labelStep));
    paint.textAlign = "right";
    data.queries.forEach((token, t) => {
      if (labelStep > 1 && !isShown(t, state.query)) return;
      ink(t === state.query);
      paint.fillText(shorten(token, 18), left - 6, top + (t + 0.5) * cell);
    });
    paint.textAlign = "left";
    data.keys.forEach((token, s) => {
      if (labelStep > 1 && !isShown(s, state.key)) return;
      ink(s === state.key);
      paint.save();
      paint.translate(left + (s + 0.5) * cell, top - 6);
      paint.rotate(-Math.PI / 2);
      paint.fillText(shorten(token, 18), 0, 0);
      paint.restore();
    });
  }

  // Paint weights, one pixel each.
  function paintPixels(target, weights, most) {
    target.width = keys;
    target.height = queries;
    const pen = target.getContext("2d");
    const image = pen.createImageData(keys, queries);
    weights.forEach((weight, i) => image.data.set([...colour(weight, most), 255], 4 * i));
    pen.putImageData(image, 0, 0);
  }

  function drawThumbnail(target, layer, head) {
    const weights = attentionMap(data, layer, head);
    paintPixels(target, weights, largestWeight(weights));
  }

  function showReadout() {
    const query = `query ${state.query} “${data.queries[state.query]}”`;
    const row = map.subarray(state.query * keys, (state.query + 1) * keys);
    const out = byId("readout");
    const weight = document.createElement("b");
    if (state.key === null) {
      const strongest = row.indexOf(largestWeight(row));
      const none = row[strongest] === 0;
      weight.textContent = none ? "nothing" : number(row[strongest]);
      out.replaceChildren(`${query} looks most at `, ...(none ? [] : [`key ${strongest} “${data.keys[strongest]}”: `]), weight);
    } else {
      weight.textContent = number(row[state.key]);
      out.replaceChildren(`${query} → key ${state.key} “${data.keys[state.key]}”: `, weight);
    }
    if (state.fixed) out.append(" (row fixed)");
  }

  function redraw() {
    drawMap();
    showReadout();
    queryWords.forEach((word, t) => {
      word.classList.toggle("here", t === state.query);
      word.setAttribute("aria-pressed", String(state.fixed && t === state.query));
      word.tabIndex = t === state.query ? 0 : -1;
    });
    keyWords.forEach((word, s) => {
      const weight = map[state.query * keys + s];
      const paint = colour(weight, largest);
      word.style.backgroundColor = css(paint);
      word.style.color = textColourOn(paint);
      word.title = number(weight);
      word.classList.toggle("here", s === state.key);
    });
  }

  function choose(layer, head) {
    state.layer = layer;
    state.head = head;
    byId("layer").value = layer;
    byId("head").value = head;
    map = attentionMap(data, layer, head);
    largest = largestWeight(map);
    paintPixels(pixels, map, largest);
    byId("largest").textContent = number(largest);
    const entropy = entropyOf(map, keys);
    byId("entropy").textContent = entropy === null ? "" : `entropy ${entropy.toFixed(4)} nats of at most ${Math.log(keys).toFixed(4)}`;
    thumbnails.forEach((small) => small.classList.toggle("here", small.layer === layer && small.head === head));
    redraw();
  }

  function cellUnder(event) {
    const box = canvas.getBoundingClientRect();
    const s = Math.floor((event.clientX - box.left - left) / cell);
    const t = Math.floor((event.clientY - box.top - top) / cell);
    return s < keys && t >= 0 && t < queries ? [t, s] : null;
  }

  function makeThumbnails() {
    const grid = byId("thumbnails");
    byId("overview").hidden = layers * heads < 2;
    grid.style.gridTemplateColumns = `repeat(${heads + 1}, max-content)`;
    const elements = [];
    for (let l = 0; l < layers; l++) {
      const name = document.createElement("span");
      name.textContent = "layer " + data.layers[l];
      grid.append(name);
      for (let n = 0; n < heads; n++) {
        const small = document.createElement("canvas");
        const entropy = entropyOf(attentionMap(data, l, n), keys);
        const spread = entropy === null ? "" : `, entropy ${entropy.toFixed(2)} nats`;
        Object.assign(small, {layer: l, head: n, title: `layer ${data.layers[l]}, head ${n}${spread}`});
        small.addEventListener("click", () => choose(l, n));
        drawThumbnail(small, l, n);
        grid.append(small);
        elements.push(small);
      }
    }
    return elements;
  }

  data.layers.forEach((name, l) => option(byId("layer"), l, name));
  if (data.rollout) option(byId("layer"), ROLLOUT, "rollout of these");
  for (let n = 0; n < heads; n++) option(byId("head"), n, n);
  if (heads > 1) option(byId("head"), -1, "mean of all");
  readColours();
  const queryWords = makeWords(byId("queries"), data.queries, "button");
  const keyWords = makeWords(byId("keys"), data.keys, "span");
  keyWords.forEach((word) => word.setAttribute("role", "listitem"));
  const thumbnails = makeThumbnails();

  byId("head").addEventListener("change", () => choose(state.layer, Number(byId("head").value)));
  byId("layer").addEventListener("change", () => {
    const layer = Number(byId("layer").value);
    choose(layer, layer === ROLLOUT && heads > 1 ? -1 : state.head);
  });
  queryWords.forEach((word, t) => {
    word.addEventListener("click", () => toggle(t));
    word.addEventListener("keydown", (event) => {
      const to = moveCell(event.key, t, t, queries, queries);
      if (!to) return;
      event.preventDefault();
      state.query = event.key === "ArrowUp" || event.key === "ArrowDown" ? to[0] : to[1];
      redraw();
      queryWords[state.query].focus();
    });
  });
  canvas.addEventListener("mousemove", (event) => {
    const target = cellUnder(event);
    if (!target) return;
    if (!state.fixed) state.query = target[0];
    state.key = target[1] < 0 ? null : target[1];
    redraw();
  });
  for (const part of [canvas, byId("keys")]) part.addEventListener("mouseleave", () => { state.key = null; redraw(); });
  canvas.addEventListener("click", (event) => {
    const target = cellUnder(event);
    if (target) toggle(target[0]);
  });
  canvas.addEventListener("keydown", (event) => {
    const to = moveCell(event.key, state.query, state.key ?? 0, queries, keys);
    if (to) [state.query, state.key] = to;
    else if (event.key === "Enter" || event.key === " ") toggle(state.query);
    else return;
    event.preventDefault();
    redraw();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") releaseRow(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    thumbnails.forEach((small) => drawThumbnail(small, small.layer, small.head));
    paintPixels(pixels, map, largest);
    redraw();
  });
  choose(0, 0);
}

if (typeof document !== "undefined") {
  const data = JSON.parse(document.getElementById("data").textContent);
  data.steps = decode(data.weights);
  start(data);
}
