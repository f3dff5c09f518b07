"use strict";

// Numbers and colours: no document is needed here, so this half can be tested by itself.

// Little-endian 16-bit steps, 0 to 65535 for 0 to the largest weight of the map.
function decode(base64) {
  const bytes = atob(base64);
  const steps = new Uint16Array(bytes.length / 2);
  for (let i = 0; i < steps.length; i++) steps[i] = bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8);
  return steps;
}

const ROLLOUT = -1;

// One head of one layer as Float64Array [T * S]; head -1 is the mean of all heads, layer ROLLOUT all layers one after
// the other.
function mapOf(data, layer, head) {
  if (layer === ROLLOUT) return rolloutOf(data, head);
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

// Product of 0.5 A + 0.5 I over the layers: the share of each input word in each output.
function rolloutOf(data, head) {
  const [layers, , count] = data.shape;
  let result = null;
  for (let layer = 0; layer < layers; layer++) {
    const half = mapOf(data, layer, head).map((weight, i) => weight / 2 + (i % (count + 1) === 0 ? 0.5 : 0));
    result = result === null ? half : product(half, result, count);
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

// Whether no row sums to more than 1; those of sigmoid attention may.
function areShares(map, keys) {
  for (let first = 0; first < map.length; first += keys) {
    let sum = 0;
    for (let s = 0; s < keys; s++) sum += map[first + s];
    if (sum > 1 + 2 ** -7) return false;
  }
  return true;
}

// Mean of -sum w log w over the rows that attend to something, in nats; null if rows are no shares or all are empty.
function entropyOf(map, keys) {
  if (!areShares(map, keys)) return null;
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

function largestOf(map) {
  let largest = 0;
  for (const weight of map) if (weight > largest) largest = weight;
  return largest;
}

// Four decimals; a weight too small for them is not called 0.
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

// Black or white, whichever has the larger contrast by WCAG 2.
function inkOn(colour) {
  const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}

function clamp(x, low, high) {
  return Math.min(high, Math.max(low, x));
}

// Where arrow keys lead in a map of the given size; null for other keys.
function moved(key, query, keyIndex, queries, keys) {
  const steps = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  if (!(key in steps)) return null;
  return [clamp(query + steps[key][0], 0, queries - 1), clamp(keyIndex + steps[key][1], 0, keys - 1)];
}

// The page.

function start(data) {
  const [layers, heads, queries, keys] = data.shape;
  const at = (id) => document.getElementById(id);
  const state = {layer: 0, head: 0, query: 0, key: null, fixed: false};
  const canvas = at("map");
  const cell = clamp(Math.floor(640 / Math.max(queries, keys)), 9, 34);
  const letters = clamp(Math.floor(cell * 0.8), 8, 13);
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

  function words(parent, tokens, tag) {
    const made = tokens.map((token, i) => {
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
    return made;
  }

  function point(tag, index) {
    if (tag === "span") state.key = index;
    else if (!state.fixed) state.query = index;
    show();
  }

  function toggle(query) {
    state.fixed = !(state.fixed && state.query === query);
    state.query = query;
    show();
  }

  function free() {
    state.fixed = false;
    show();
  }

  // A canvas whose units are CSS pixels, sharp on any screen.
  function sized(target, wide, high) {
    const ratio = window.devicePixelRatio || 1;
    target.width = Math.ceil(wide * ratio);
    target.height = Math.ceil(high * ratio);
    target.style.width = wide + "px";
    target.style.height = high + "px";
    const pen = target.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    return pen;
  }

  function drawMap() {
    const font = `${letters}px ${getComputedStyle(document.body).fontFamily}`;
    const pen = canvas.getContext("2d");
    pen.font = font;
    const widest = (tokens) => Math.ceil(Math.max(...tokens.map((token) => pen.measureText(shorten(token, 18)).width)));
    left = widest(data.queries) + 12;
    top = widest(data.keys) + 12;
    const paint = sized(canvas, left + keys * cell + 2, top + queries * cell + 2);
    paint.font = font;
    for (let t = 0; t < queries; t++) {
      for (let s = 0; s < keys; s++) {
        paint.fillStyle = css(colour(map[t * keys + s], largest));
        paint.fillRect(left + s * cell, top + t * cell, cell, cell);
      }
    }
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

  function drawLabels(paint) {
    paint.textBaseline = "middle";
    const ink = (here) => { paint.fillStyle = here ? colours.mark : colours.ink; };
    paint.textAlign = "right";
    data.queries.forEach((token, t) => {
      ink(t === state.query);
      paint.fillText(shorten(token, 18), left - 6, top + (t + 0.5) * cell);
    });
    paint.textAlign = "left";
    data.keys.forEach((token, s) => {
      ink(s === state.key);
      paint.save();
      paint.translate(left + (s + 0.5) * cell, top - 6);
      paint.rotate(-Math.PI / 2);
      paint.fillText(shorten(token, 18), 0, 0);
      paint.restore();
    });
  }

  function drawThumbnail(target, layer, head) {
    const own = mapOf(data, layer, head);
    const most = largestOf(own);
    target.width = keys;
    target.height = queries;
    const pen = target.getContext("2d");
    const image = pen.createImageData(keys, queries);
    own.forEach((weight, i) => image.data.set([...colour(weight, most), 255], 4 * i));
    pen.putImageData(image, 0, 0);
  }

  function say() {
    const query = `query ${state.query} “${data.queries[state.query]}”`;
    const row = Array.from(map.subarray(state.query * keys, (state.query + 1) * keys));
    const out = at("readout");
    const weight = document.createElement("b");
    if (state.key === null) {
      const strongest = row.indexOf(Math.max(...row));
      const none = row[strongest] === 0;
      weight.textContent = none ? "nothing" : number(row[strongest]);
      out.replaceChildren(`${query} looks most at `, ...(none ? [] : [`key ${strongest} “${data.keys[strongest]}”: `]), weight);
    } else {
      weight.textContent = number(row[state.key]);
      out.replaceChildren(`${query} → key ${state.key} “${data.keys[state.key]}”: `, weight);
    }
    if (state.fixed) out.append(" (row fixed)");
  }

  function show() {
    drawMap();
    say();
    queryWords.forEach((word, t) => {
      word.classList.toggle("here", t === state.query);
      word.setAttribute("aria-pressed", String(state.fixed && t === state.query));
      word.tabIndex = t === state.query ? 0 : -1;
    });
    keyWords.forEach((word, s) => {
      const weight = map[state.query * keys + s];
      const paint = colour(weight, largest);
      word.style.backgroundColor = css(paint);
      word.style.color = inkOn(paint);
      word.title = number(weight);
      word.classList.toggle("here", s === state.key);
    });
  }

  function choose(layer, head) {
    state.layer = layer;
    state.head = head;
    at("layer").value = layer;
    at("head").value = head;
    map = mapOf(data, layer, head);
    largest = largestOf(map);
    at("largest").textContent = number(largest);
    const entropy = entropyOf(map, keys);
    at("entropy").textContent = entropy === null ? "" : `entropy ${entropy.toFixed(4)} nats of at most ${Math.log(keys).toFixed(4)}`;
    thumbnails.forEach((small) => small.classList.toggle("here", small.layer === layer && small.head === head));
    show();
  }

  function cellUnder(event) {
    const box = canvas.getBoundingClientRect();
    const s = Math.floor((event.clientX - box.left - left) / cell);
    const t = Math.floor((event.clientY - box.top - top) / cell);
    return s < keys && t >= 0 && t < queries ? [t, s] : null;
  }

  function makeThumbnails() {
    const grid = at("thumbnails");
    at("overview").hidden = layers * heads < 2;
    grid.style.gridTemplateColumns = `repeat(${heads + 1}, max-content)`;
    const made = [];
    for (let l = 0; l < layers; l++) {
      const name = document.createElement("span");
      name.textContent = "layer " + data.layers[l];
      grid.append(name);
      for (let n = 0; n < heads; n++) {
        const small = document.createElement("canvas");
        const entropy = entropyOf(mapOf(data, l, n), keys);
        const spread = entropy === null ? "" : `, entropy ${entropy.toFixed(2)} nats`;
        Object.assign(small, {layer: l, head: n, title: `layer ${data.layers[l]}, head ${n}${spread}`});
        small.addEventListener("click", () => choose(l, n));
        drawThumbnail(small, l, n);
        grid.append(small);
        made.push(small);
      }
    }
    return made;
  }

  data.layers.forEach((name, l) => option(at("layer"), l, name));
  if (data.rollout) option(at("layer"), ROLLOUT, "rollout of these");
  for (let n = 0; n < heads; n++) option(at("head"), n, n);
  if (heads > 1) option(at("head"), -1, "mean of all");
  readColours();
  const queryWords = words(at("queries"), data.queries, "button");
  const keyWords = words(at("keys"), data.keys, "span");
  keyWords.forEach((word) => word.setAttribute("role", "listitem"));
  const thumbnails = makeThumbnails();

  at("head").addEventListener("change", () => choose(state.layer, Number(at("head").value)));
  at("layer").addEventListener("change", () => {
    const layer = Number(at("layer").value);
    choose(layer, layer === ROLLOUT && heads > 1 ? -1 : state.head);
  });
  queryWords.forEach((word, t) => {
    word.addEventListener("click", () => toggle(t));
    word.addEventListener("keydown", (event) => {
      const to = moved(event.key, t, t, queries, queries);
      if (!to) return;
      event.preventDefault();
      state.query = event.key === "ArrowUp" || event.key === "ArrowDown" ? to[0] : to[1];
      show();
      queryWords[state.query].focus();
    });
  });
  canvas.addEventListener("mousemove", (event) => {
    const found = cellUnder(event);
    if (!found) return;
    if (!state.fixed) state.query = found[0];
    state.key = found[1] < 0 ? null : found[1];
    show();
  });
  for (const part of [canvas, at("keys")]) part.addEventListener("mouseleave", () => { state.key = null; show(); });
  canvas.addEventListener("click", (event) => {
    const found = cellUnder(event);
    if (found) toggle(found[0]);
  });
  canvas.addEventListener("keydown", (event) => {
    const to = moved(event.key, state.query, state.key ?? 0, queries, keys);
    if (to) [state.query, state.key] = to;
    else if (event.key === "Enter" || event.key === " ") toggle(state.query);
    else return;
    event.preventDefault();
    show();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") free(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    thumbnails.forEach((small) => drawThumbnail(small, small.layer, small.head));
    show();
  });
  choose(0, 0);
}

if (typeof document !== "undefined") {
  const data = JSON.parse(document.getElementById("data").textContent);
  data.steps = decode(data.weights);
  start(data);
}
