// Making elements, and saying numbers. Text is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);
export const s = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);
export const byId = (id) => document.getElementById(id);

/** Sets a text only where it differs, so that nothing is laid out or read aloud again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The four paths, in the order in which they are shown, and what is between others. */
export const PATHS = [
  { id: "endpoint", name: "Endpoint", about: "over the backbone" },
  { id: "tunnel", name: "Tunnel", about: "by gateway or appliance" },
  { id: "internet", name: "Internet", about: "by the internet edge" },
  { id: "inside", name: "Inside", about: "in the virtual networks" },
];
export const pathName = (id) => PATHS.find((path) => path.id === id)?.name ?? "Outside";

/** A piece of line as a path is drawn, beside its name: nobody has to tell colours apart. */
export function swatch(path) {
  return s("svg", { class: `swatch path-${path}`, viewBox: "0 0 28 10", width: 28, height: 10, "aria-hidden": "true" },
    s("path", { class: "line", d: "M2 5H26" }), path === "tunnel" ? s("path", { class: "bore", d: "M2 5H26" }) : null);
}

export const pathLabel = (path) => h("span", { class: `path path-${path}` }, swatch(path), pathName(path));

const scaled = (value, units) => {
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) { value /= 1000; unit += 1; }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
};
export const rate = (bits) => scaled(bits, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]);
export const bytes = (count) => scaled(count, ["B", "kB", "MB", "GB", "TB"]);
export const count = (value) => value.toLocaleString("en").replaceAll(",", "\u202f");
export const milliseconds = (us) => (us >= 99_950 ? `${(us / 1000).toFixed(0)} ms` : us >= 9_950 ? `${(us / 1000).toFixed(1)} ms` : `${(us / 1000).toFixed(2)} ms`);
export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

/** A table that can be read on a narrow screen, where rows stand below each other and cells carry their column's name. */
export function table(label, columns, rows) {
  const head = h("tr", { role: "row" }, columns.map((column) => h("th", { role: "columnheader", scope: "col", class: column.class }, column.name)));
  const cells = (row) => columns.map((column) => h("td", { role: "cell", class: column.class, "data-label": column.name }, column.of(row)));
  return h("table", { role: "table", "aria-label": label },
    h("thead", { role: "rowgroup" }, head),
    h("tbody", { role: "rowgroup" }, rows.map((row) => h("tr", { role: "row", class: row.class }, cells(row)))));
}
