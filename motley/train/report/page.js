"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const make = (tag, parent, attributes = {}, text) => {
  const svg = ["svg", "path", "line", "text", "circle", "rect", "g"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
};
const byId = (id) => document.getElementById(id);
const mean = (list) => list.reduce((sum, value) => sum + value, 0) / Math.max(1, list.length);
const last = (list) => list[list.length - 1];

// Numbers for people: three or four digits, k and M for large ones.
function show(value, digits) {
  if (value === null || value === undefined) return "–";
  if (digits !== undefined) return value.toFixed(digits);
  const size = Math.abs(value);
  if (size >= 1e6) return (value / 1e6).toFixed(2) + " M";
  if (size >= 1e4) return (value / 1e3).toFixed(1) + " k";
  if (size === 0) return "0";
  if (size < 1e-3) return value.toExponential(1);
  return size >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}
function duration(seconds) {
  if (seconds < 60) return seconds.toFixed(1) + " s";
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes + " min " + String(Math.floor(seconds % 60)).padStart(2, "0") + " s";
  return Math.floor(minutes / 60) + " h " + String(minutes % 60).padStart(2, "0") + " min";
}

// Round numbers that divide [low, high] into about `count` parts.
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const list = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) list.push(value);
  return list;
}

const hue = (index, count) => `hsl(${Math.round(215 + (index * 290) / Math.max(1, count)) % 360} 62% 52%)`;

// series: [{name, color, points: [[step, value]], dots}]. Shows values under the pointer below the chart.
function chart(parent, series, options = {}) {
  series = series.filter((line) => line.points.length > 0);
  if (series.length === 0) {
    make("p", parent, {}, "No values yet.");
    return;
  }
  const width = options.wide ? 1100 : 400, height = options.wide ? 300 : 190;
  const left = 52, right = 12, top = 10, bottom = 24;
  const all = series.flatMap((line) => line.points);
  const minX = Math.min(...all.map((point) => point[0])), maxX = Math.max(...all.map((point) => point[0]), minX + 1);
  let minY = options.zero ? 0 : Math.min(...all.map((point) => point[1]));
  let maxY = Math.max(...all.map((point) => point[1]));
  if (maxY - minY < 1e-12) { maxY += Math.abs(maxY) * 0.1 + 1e-9; minY -= options.zero ? 0 : Math.abs(minY) * 0.1; }
  const pad = (maxY - minY) * 0.05;
  maxY += pad;
  if (!options.zero) minY -= pad;
  const x = (value) => left + ((value - minX) / (maxX - minX)) * (width - left - right);
  const y = (value) => height - bottom - ((value - minY) / (maxY - minY)) * (height - top - bottom);
  const svg = make("svg", parent, { viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const value of ticks(minY, maxY, options.wide ? 6 : 4)) {
    make("line", svg, { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) });
    make("text", svg, { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, show(value));
  }
  for (const value of ticks(minX, maxX, options.wide ? 8 : 4)) {
    make("text", svg, { x: x(value), y: height - 6, "text-anchor": "middle" }, show(value));
  }
  for (const line of series) {
    const path = line.points.map(([px, py], i) => `${i ? "L" : "M"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("");
    make("path", svg, { d: path, fill: "none", stroke: line.color, "stroke-width": line.thin ? 1.3 : 1.9, "stroke-linejoin": "round" });
    if (line.dots || line.points.length === 1) {
      for (const [px, py] of line.points) make("circle", svg, { cx: x(px), cy: y(py), r: line.points.length > 60 ? 1.6 : 3, fill: line.color });
    }
  }
  if (series.length > 1) {
    const legend = make("div", parent, { class: "legend" });
    for (const line of series) {
      const entry = make("span", legend);
      make("i", entry, { style: `background:${line.color}` });
      entry.append(line.name);
    }
  }
  const tip = make("div", parent, { class: "tip" });
  const cursor = make("line", svg, { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = minX + ((event.clientX - box.left) * (width / box.width) - left) / (width - left - right) * (maxX - minX);
    const near = (line) => line.points.reduce((best, point) => Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best);
    const step = near(series[0])[0];
    cursor.setAttribute("visibility", "visible");
    cursor.setAttribute("x1", x(step));
    cursor.setAttribute("x2", x(step));
    tip.textContent = `step ${step}: ` + series.map((line) => `${line.name} ${show(near(line)[1], options.digits)}`).join(", ");
  });
}

function card(title, note, series, options) {
  const section = make("section", byId("charts"));
  make("h2", section, {}, title);
  make("p", section, {}, note);
  chart(section, series, options);
}

const points = (pick) => data.train.map((line) => [line.step, pick(line)]).filter((point) => Number.isFinite(point[1]));
const layerSeries = (pick) => data.layers.map((name, layer) => ({
  name: `layer ${name}`, color: hue(layer, data.layers.length), thin: true, points: points((line) => pick(line, layer)),
}));
function balance(line, layer) {
  const load = line.load[layer].slice(0, data.num_experts[layer]);
  return Math.max(...load) / Math.max(1e-12, mean(load));
}

function drawHead() {
  const end = last(data.train), config = data.config.train;
  byId("title").textContent = `Motley: ${data.run}`;
  document.title = `Motley: ${data.run}`;
  const step = end ? end.step : 0;
  byId("status").textContent = `${step} of ${config.steps} steps; ${data.data_path}; ${config.dtype}, ${data.threads} threads, seed ${config.seed}`;
  const tile = (name, value) => {
    const box = make("div", byId("tiles"), { class: "tile" });
    make("b", box, {}, value);
    make("span", box, {}, name);
  };
  const best = data.eval.reduce((low, line) => (!low || line.loss < low.loss ? line : low), null);
  if (data.eval.length) tile(`validation loss, nats/token (lowest ${show(best.loss, 3)})`, show(last(data.eval).loss, 3));
  if (!end) return;
  tile("training loss, nats/token", show(end.loss, 3));
  if (data.layers.length) tile("FFN experts a token", show(mean(end.ffn_experts_per_token), 2));
  tile("tokens/s, median", show([...data.train.map((line) => line.tokens_per_second)].sort((a, b) => a - b)[data.train.length >> 1]));
  tile("time", duration(end.seconds));
  tile("tokens seen", show(end.tokens));
  tile("parameters", show(data.parameters));
}

function drawCharts() {
  const style = getComputedStyle(document.documentElement);
  const blue = style.getPropertyValue("--a"), orange = style.getPropertyValue("--b");
  chart(byId("loss"), [
    { name: "training", color: blue, points: points((line) => line.loss), thin: true },
    { name: "validation", color: orange, points: data.eval.map((line) => [line.step, line.loss]), dots: true },
  ], { wide: true, digits: 3 });
  if (data.layers.length) {
    card("FFN experts a token", "Choices of each token that reach a feed-forward network, by layer.", layerSeries((line, layer) => line.ffn_experts_per_token[layer]), { digits: 3 });
    card("Balance", "Load of the fullest FFN expert over the mean, by layer. 1 is even.", layerSeries(balance), { digits: 2 });
    if (data.train.some((line) => line.dropped.some((value) => value > 0))) {
      card("Dropped", "Assignments a token lost to capacity, by layer.", layerSeries((line, layer) => line.dropped[layer]), { zero: true, digits: 4 });
    }
  }
  const names = [...new Set(data.train.flatMap((line) => Object.keys(line.losses)))];
  if (names.length) {
    card("Auxiliary losses", "As they are added to the loss, summed over layers.", names.map((name, i) => ({ name, color: hue(i, names.length), points: points((line) => line.losses[name]) })));
  }
  card("Learning rate", "", [{ name: "learning rate", color: blue, points: points((line) => line.learning_rate) }], { zero: true });
  card("Gradient norm", "Before clipping, mean since the line before.", [{ name: "norm", color: blue, thin: true, points: points((line) => line.grad_norm) }], { zero: true });
  card("Speed", "Training tokens a second, without evaluations and checkpoints.", [{ name: "tokens/s", color: blue, thin: true, points: points((line) => line.tokens_per_second) }], { zero: true });
}

// Colours as [r, g, b], read through a canvas, which understands every CSS colour.
function rgb(color) {
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

function drawMaps() {
  if (!data.layers.length || !data.train.length) {
    byId("maps-section").remove();
    return;
  }
  const style = getComputedStyle(document.documentElement);
  const [low, mid, high] = ["--low", "--mid", "--high"].map((name) => rgb(style.getPropertyValue(name).trim()));
  const blend = (a, b, share) => a.map((value, i) => value + (b[i] - value) * share);
  data.layers.forEach((name, layer) => {
    const experts = data.num_experts[layer], slots = data.train[0].load[layer].length, columns = data.train.length;
    const zero = data.config.model.zero_expert_types || [];
    const slotName = (slot) => (slot < experts ? String(slot) : zero[slot - experts] || `Z${slot - experts}`);
    const box = make("div", byId("maps"), { class: "map" });
    make("h3", box, {}, `layer ${name}`);
    const height = Math.max(90, Math.min(13 * slots, 320));
    const rows = make("div", box, { class: "rows", style: `height:${height}px` });
    const every = Math.ceil((slots * 11) / height);
    for (let slot = 0; slot < slots; slot += 1) make("span", rows, {}, slot % every === 0 || slot === experts ? slotName(slot) : "");
    const canvas = make("canvas", box, { width: columns, height: slots, style: `height:${height}px` });
    const context = canvas.getContext("2d"), image = context.createImageData(columns, slots);
    const relative = (column, slot) => {
      const load = data.train[column].load[layer];
      return load[slot] / Math.max(1e-12, mean(load.slice(0, experts)));
    };
    for (let column = 0; column < columns; column += 1) {
      for (let slot = 0; slot < slots; slot += 1) {
        const value = Math.min(2, relative(column, slot));
        const color = value < 1 ? blend(low, mid, value) : blend(mid, high, value - 1);
        image.data.set([...color, 255], (slot * columns + column) * 4);
      }
    }
    context.putImageData(image, 0, 0);
    canvas.addEventListener("pointermove", (event) => {
      const place = canvas.getBoundingClientRect();
      const column = Math.min(columns - 1, Math.floor(((event.clientX - place.left) / place.width) * columns));
      const slot = Math.min(slots - 1, Math.floor(((event.clientY - place.top) / place.height) * slots));
      const line = data.train[column];
      if (!line || slot < 0) return;
      byId("map-tip").textContent = `layer ${name}, step ${line.step}, slot ${slotName(slot)}: ${show(line.load[layer][slot], 3)} of each token's choices, ${show(relative(column, slot), 2)} times the mean`;
    });
  });
}

function drawSamples() {
  if (!data.sample.length) byId("samples-section").remove();
  [...data.sample].reverse().slice(0, 12).forEach((line, index) => {
    const details = make("details", byId("samples"), index === 0 ? { open: "" } : {});
    make("summary", details, {}, `step ${line.step}`);
    const pre = make("pre", details);
    make("em", pre, {}, line.prompt);
    pre.append(line.text);
  });
}

function draw() {
  for (const id of ["tiles", "loss", "charts", "maps", "samples"]) if (byId(id)) byId(id).replaceChildren();
  drawHead();
  drawCharts();
  drawMaps();
  drawSamples();
  byId("config").textContent = JSON.stringify(data.config, null, 2);
}
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
