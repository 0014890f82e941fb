// The flow table: searched, sorted, walked through by keys; the flow under pointer or focus is drawn on the map.

import { byId, bytes, count, h, many, pathLabel, pathName, rate, say } from "./dom.js";

const FEW = () => (matchMedia("(max-width: 860px)").matches ? 10 : 30);

const COLUMNS = [
  { id: "path", name: "Path", value: (flow) => pathName(flow.path), of: (flow) => pathLabel(flow.path) },
  { id: "from", name: "From", value: (flow) => `${flow.ingress} ${flow.source}`, of: (flow) => [h("b", {}, flow.ingress), ` ${flow.source}`] },
  { id: "to", name: "To", value: (flow) => flow.destination, of: (flow) => [`${flow.destination} `, h("span", { class: "fine" }, `${flow.protocol}${flow.identifier === null ? "" : ` id ${flow.identifier}`}, ${flow.phase}`)] },
  { id: "hop", name: "Next hop type", value: (flow) => flow.next_hop_type, of: (flow) => flow.next_hop_type },
  { id: "endpoint", name: "Endpoint", value: (flow) => flow.endpoint ?? "", of: (flow) => flow.endpoint ?? "–" },
  { id: "seen", name: "Source seen", value: (flow) => flow.presented, of: (flow) => (flow.presented === flow.source ? h("span", { class: "fine" }, "as sent") : flow.presented) },
  { id: "rate", name: "Rate", class: "number", value: (flow) => flow.rate[0] + flow.rate[1], of: (flow) => `↑ ${rate(flow.rate[0])}  ↓ ${rate(flow.rate[1])}` },
  { id: "bytes", name: "Total", class: "number", value: (flow) => flow.bytes[0] + flow.bytes[1], of: (flow) => bytes(flow.bytes[0] + flow.bytes[1]) },
];

export const keyOf = (flow) => flow.key;

export class Flows {
  /** `look` is told which flow is looked at, or none; `choose` which one is kept. */
  constructor({ look, choose }) {
    this.look = look;
    this.choose = choose;
    this.rows = new Map();
    this.flows = [];
    this.sort = { id: "rate", down: true };
    this.all = false;
    this.buttons = new Map();
    const heads = COLUMNS.map((column) => {
      const button = h("button", { type: "button", onclick: () => this.sortBy(column.id) }, column.name);
      const head = h("th", { role: "columnheader", scope: "col", class: column.class }, button);
      this.buttons.set(column.id, head);
      return head;
    });
    this.body = h("tbody", { role: "rowgroup" });
    this.table = h("table", { role: "table", "aria-label": "Flows", class: "flow-table" }, h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads)), this.body);
    this.more = h("button", { type: "button", class: "more", hidden: true, onclick: () => { this.all = true; this.draw(); } });
    this.empty = h("p", { class: "empty", hidden: true });
    byId("flow-table").append(this.table, this.empty, this.more);
    this.search = byId("search");
    this.search.addEventListener("input", () => this.draw());
    this.body.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("pointerleave", () => this.look(null));
    this.body.addEventListener("focusout", () => this.look(null));
  }

  set(live) {
    this.live = live;
    this.flows = live.flows;
    this.draw();
  }

  sortBy(id) {
    const numbers = ["rate", "bytes"].includes(id);
    this.sort = this.sort.id === id ? { id, down: !this.sort.down } : { id, down: numbers };
    this.draw();
  }

  matching() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (flow) => `${COLUMNS.slice(0, 6).map((column) => column.value(flow)).join(" ")} ${flow.protocol} ${flow.identifier ?? ""} ${flow.phase} ${flow.egress} ${flow.reached}`.toLowerCase();
    const column = COLUMNS.find((column) => column.id === this.sort.id);
    const order = (a, b) => {
      const [x, y] = [column.value(a), column.value(b)];
      const compared = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
      return (this.sort.down ? -compared : compared) || keyOf(a).localeCompare(keyOf(b));
    };
    return this.flows.filter((flow) => words.every((word) => text(flow).includes(word))).sort(order);
  }

  draw() {
    if (!this.live) return;
    for (const [id, head] of this.buttons) {
      head.setAttribute("aria-sort", id !== this.sort.id ? "none" : this.sort.down ? "descending" : "ascending");
    }
    const found = this.matching();
    const shown = this.all ? found : found.slice(0, FEW());
    // Rows stay where the focus is, or a reader and a pointer would lose them.
    const rows = shown.map((flow) => this.row(flow));
    const wanted = new Set(rows);
    for (const [key, row] of this.rows) if (!wanted.has(row)) { row.remove(); this.rows.delete(key); }
    rows.forEach((row, index) => {
      const there = this.body.children[index];
      if (there !== row) {
        const focused = document.activeElement === row;
        this.body.insertBefore(row, there ?? null);
        if (focused) row.focus({ preventScroll: true });
      }
    });
    const stop = rows.find((row) => row === document.activeElement) ?? rows[0];
    rows.forEach((row) => { row.tabIndex = row === stop ? 0 : -1; });
    const { sample } = this.live;
    const part = sample.complete ? many(sample.total, "flow") : `sample: ${count(sample.looked_at)} flows are known, of ${count(sample.total)}`;
    // What is searched is what is here; `sidestep top` asks the node for words.
    const here = sample.total > this.flows.length ? `; the ${count(this.flows.length)} fastest are here` : "";
    say(byId("flows-count"), `${part}${here}${found.length < this.flows.length ? `; ${count(found.length)} found${here ? " among them" : ""}` : ""}`);
    this.more.hidden = shown.length === found.length;
    say(this.more, `Show all ${found.length}`);
    this.empty.hidden = found.length > 0;
    say(this.empty, this.flows.length === 0 ? "Nothing goes through the node." : "No flow matches.");
    this.table.hidden = found.length === 0;
  }

  row(flow) {
    const key = keyOf(flow);
    let row = this.rows.get(key);
    if (!row) {
      row = h("tr", { role: "row", tabindex: -1, "data-key": key }, COLUMNS.map((column) => h("td", { role: "cell", class: column.class, "data-label": column.name, "data-column": column.id })));
      row.addEventListener("pointerenter", () => this.look(row.flow));
      row.addEventListener("focus", () => this.look(row.flow));
      row.addEventListener("click", () => this.choose(row.flow));
      this.rows.set(key, row);
    }
    row.flow = flow;
    COLUMNS.forEach((column, index) => {
      const value = JSON.stringify([column.value(flow), column.id === "to" ? flow.phase : column.id === "rate" ? flow.rate : column.id === "seen" ? flow.source : 0]);
      const cell = row.children[index];
      if (cell.shown === value) return;
      cell.shown = value;
      cell.replaceChildren(...[column.of(flow)].flat());
    });
    row.className = `path-${flow.path}`;
    row.setAttribute("aria-selected", key === this.kept ? "true" : "false");
    return row;
  }

  keep(key) { this.kept = key; this.draw(); }
  current(key) { return this.flows.find((flow) => keyOf(flow) === key); }
  focus() { (this.body.querySelector("tr[tabindex='0']") ?? this.search).focus(); }

  key(event) {
    const row = event.target.closest("tr");
    const to = { ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling, Home: this.body.firstElementChild, End: this.body.lastElementChild }[event.key];
    if (to) {
      row.tabIndex = -1;
      to.tabIndex = 0;
      to.focus();
      event.preventDefault();
    } else if (event.key === "Enter" && row) {
      this.choose(row.flow);
      event.preventDefault();
    }
  }
}
