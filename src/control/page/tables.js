// Ports, drops and changes: small tables, made anew only where what they show differs.

import { byId, bytes, clock, count, h, rate, table } from "./dom.js";

const shown = new Map();

function put(id, key, make) {
  const text = JSON.stringify(key);
  if (shown.get(id) === text) return;
  shown.set(id, text);
  byId(id).replaceChildren(make());
}

export function ports(live) {
  // In a steady order: rates jump.
  const rows = [...live.ports].sort((a, b) => a.name.localeCompare(b.name));
  put("ports", rows, () => table("Ports", [
    { name: "Port", of: (port) => [h("b", {}, port.name), port.name === port.kind ? "" : ` ${port.kind}`] },
    { name: "Device", of: (port) => h("span", { class: "fine" }, `${port.interface}, ${port.io}`) },
    { name: "In", class: "number", of: (port) => rate(port.rate[0]) },
    { name: "Out", class: "number", of: (port) => rate(port.rate[1]) },
    { name: "In total", class: "number", of: (port) => bytes(port.bytes[0]) },
    { name: "Out total", class: "number", of: (port) => bytes(port.bytes[1]) },
  ], rows));
}

export function drops(live) {
  const rows = [...live.drops].sort((a, b) => b.rate - a.rate || b.packets - a.packets);
  put("drops", rows, () => rows.length === 0 ? h("p", { class: "empty" }, "No packet has been dropped.") : table("Drops by reason", [
    { name: "Reason", of: (drop) => [h("code", {}, drop.reason), h("span", { class: "fine" }, ` ${drop.text}`)] },
    { name: "Packets", class: "number", of: (drop) => count(drop.packets) },
    { name: "A second", class: "number", of: (drop) => (drop.rate === 0 ? "0" : drop.rate.toFixed(1)) },
  ], rows));
}

export function changes(live) {
  const rows = live.changes.slice(-8).reverse();
  put("changes", rows, () => h("ol", { class: "history" }, rows.map((change) => h("li", { class: change.refused ? "refused" : null },
    h("time", {}, clock(change.at * 1000)), h("span", {}, change.what), h("span", { class: "fine" },
      change.refused ? `refused: ${change.refused}` : `generation ${change.generation}, by ${change.who}${effect(change.effect)}`)))));
}

const effect = (done) => (done ? `; ${done.flows_reset} reset, ${done.flows_moved} moved, ${done.flows_kept} kept` : "");
