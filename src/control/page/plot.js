// Values of the paths over time. One sample a second at most; a gap is a gap, never a line across it.

import { PATHS, clock, s } from "./dom.js";

const SPAN = 180_000;
const GAP = 3_000;
const HEIGHT = 190;
const EDGE = { left: 74, right: 14, top: 30, bottom: 24 };

/**
 * A plot of samples `{ path, time, value }`. Where they are `sparse`, each has a dot, as it may stand alone, and values have decades
 * of the same height. `empty` is said where there is none.
 */
export class Plot {
  constructor(place, { label, format, least, sparse = false, empty = "" }) {
    this.format = format;
    this.least = least;
    this.sparse = sparse;
    this.empty = empty;
    this.label = label;
    this.samples = new Map(PATHS.map((path) => [path.id, []]));
    this.marks = [];
    this.svg = s("svg", { role: "img", class: "plot", "aria-label": label });
    place.append(this.svg);
    this.place = place;
    this.pointer = null;
    this.svg.addEventListener("pointermove", (event) => { this.pointer = event.offsetX; this.draw(); });
    this.svg.addEventListener("pointerleave", () => { this.pointer = null; this.draw(); });
    new ResizeObserver(() => this.draw()).observe(place);
  }

  /** `range` is the lowest and the highest value that `value` stands for, `about` what is said beside it. */
  add(path, time, value, range, about = "") {
    const list = this.samples.get(path);
    if (!list) return;
    list.push({ time, value, range, about });
    while (list.length > 0 && list[0].time < time - SPAN - GAP) list.shift();
  }

  mark(marks) { this.marks = marks; }
  now(time) { this.time = time; this.draw(); }

  draw() {
    const width = this.place.clientWidth;
    if (!this.time || width < 60) return;
    const [start, end] = [this.time - SPAN, this.time];
    const seen = new Map([...this.samples].map(([path, list]) => [path, list.filter((sample) => sample.time >= start)]));
    const all = [...seen.values()].flat();
    const highest = Math.max(this.least, ...all.map((sample) => sample.range?.[1] ?? sample.value));
    const scale = this.sparse ? decades(all.flatMap((sample) => sample.range ?? [sample.value]), this.least) : linear(nice(highest * 1.08));
    const x = (time) => EDGE.left + (time - start) / SPAN * (width - EDGE.left - EDGE.right);
    const y = (value) => HEIGHT - EDGE.bottom - scale.part(value) * (HEIGHT - EDGE.top - EDGE.bottom);
    const parts = [];
    for (const value of scale.marks) {
      const at = y(value);
      parts.push(s("path", { class: "grid", d: `M${EDGE.left} ${at}H${width - EDGE.right}` }),
        s("text", { class: "axis", x: EDGE.left - 8, y: at + 4, "text-anchor": "end" }, round(this.format(value))));
    }
    const step = width < 520 ? 60 : 30;
    for (let ago = 0; ago <= 180; ago += step) {
      parts.push(s("text", { class: "axis", x: x(end - ago * 1000), y: HEIGHT - 6, "text-anchor": ago === 0 ? "end" : ago === 180 ? "start" : "middle" }, ago === 0 ? "now" : `−${ago} s`));
    }
    if (this.empty && all.length === 0) {
      parts.push(s("text", { class: "fine", x: (EDGE.left + width - EDGE.right) / 2, y: (EDGE.top + HEIGHT - EDGE.bottom) / 2 + 4, "text-anchor": "middle" }, this.empty));
    }
    let free = -Infinity;
    for (const mark of this.marks.filter((mark) => mark.time >= start && mark.time <= end + 1000)) {
      const at = Math.min(x(mark.time), width - EDGE.right);
      parts.push(s("g", { class: "mark" }, s("title", {}, `${clock(mark.time)} ${mark.text}`),
        s("path", { d: `M${at} ${EDGE.top - 8}V${HEIGHT - EDGE.bottom}` }), s("path", { class: "flag", d: `M${at} ${EDGE.top - 14}l5 6l-5 6l-5 -6z` })));
      const room = mark.short.length * 7.6;
      const left = Math.min(at + 9, width - room - 2);
      if (left > free) {
        parts.push(s("text", { class: "mark-text", x: left, y: EDGE.top - 14 }, mark.short));
        free = left + room + 8;
      }
    }
    for (const { id } of PATHS) {
      const list = seen.get(id);
      if (!list.some((sample) => sample.value > 0)) continue;
      let line = "";
      let before = -Infinity;
      for (const { time, value } of list) {
        line += `${time - before > GAP ? "M" : "L"}${x(time).toFixed(1)} ${y(value).toFixed(1)}`;
        before = time;
      }
      if (this.sparse) {
        parts.push(s("path", { class: `range path-${id}`, d: list.filter((sample) => sample.range).map(({ time, range }) => `M${x(time).toFixed(1)} ${y(range[0]).toFixed(1)}V${y(range[1]).toFixed(1)}`).join("") }),
          s("path", { class: `dots path-${id}`, d: list.map(({ time, value }) => `M${x(time).toFixed(1)} ${y(value).toFixed(1)}h0`).join("") }));
      }
      parts.push(s("path", { class: `series path-${id}`, d: line }));
      const last = list.at(-1);
      if (end - last.time < GAP) parts.push(s("circle", { class: `tip path-${id}`, cx: x(last.time), cy: y(last.value), r: 3.5 }));
    }
    if (this.pointer !== null) {
      const time = start + (this.pointer - EDGE.left) / (width - EDGE.left - EDGE.right) * SPAN;
      const near = PATHS.map((path) => [path, nearest(seen.get(path.id), time, this.sparse ? GAP : 1000)]).filter(([, sample]) => sample && sample.value > 0);
      if (near.length > 0) {
        const at = x(near[0][1].time);
        const side = at > width / 2 ? "end" : "start";
        parts.push(s("path", { class: "cross", d: `M${at} ${EDGE.top}V${HEIGHT - EDGE.bottom}` }));
        near.forEach(([path, sample], row) => parts.push(s("text", { class: `read path-${path.id}`, x: at + (side === "end" ? -8 : 8), y: EDGE.top + 12 + row * 15, "text-anchor": side }, `${path.name} ${this.format(sample.value)}${sample.about}`)));
      }
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("height", HEIGHT);
    this.svg.replaceChildren(...parts);
    const values = PATHS.map((path) => [path, seen.get(path.id).at(-1)]).filter(([, sample]) => sample && sample.value > 0);
    this.svg.setAttribute("aria-label", `${this.label}. ${this.sparse ? "Last" : "Now"}: ${values.map(([path, sample]) => `${path.name} ${this.format(sample.value)}`).join(", ") || "nothing"}`);
  }
}

function linear(ceiling) {
  return { part: (value) => value / ceiling, marks: [0, 0.5, 1].map((part) => ceiling * part) };
}

/** Powers of ten around all values, each as far from the next. */
function decades(values, least) {
  const [low, high] = [Math.floor(Math.log10(Math.max(least, Math.min(...values, least * 1000)))), Math.ceil(Math.log10(Math.max(...values, least * 10)))];
  const span = Math.max(1, high - low);
  return {
    part: (value) => Math.max(0, (Math.log10(Math.max(value, 1e-9)) - low) / span),
    marks: Array.from({ length: span + 1 }, (_, decade) => 10 ** (low + decade)),
  };
}

/** A mark of an axis needs no digits that say nothing: 10.0 ms is 10 ms. */
function round(text) {
  return text.replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
}

/** The sample that is closest to a time, none where all are further away. */
function nearest(list, time, far) {
  return list.reduce((best, sample) => (Math.abs(sample.time - time) < Math.abs((best?.time ?? Infinity) - time) && Math.abs(sample.time - time) < far ? sample : best), undefined);
}

/** The next of 1, 2, 5, 10 … */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

/** What the changes of a node are called above a plot. */
export function marksOf(changes) {
  return changes.filter((change) => !change.refused && change.who !== "start").map((change) => ({
    time: change.at * 1000, text: change.what,
    short: change.what.replace(/^enable (\S+) on .*/, "$1 on").replace(/^disable (\S+) on .*/, "$1 off").replace("Microsoft.", ""),
  }));
}
