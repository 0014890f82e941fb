// The network as a picture. Virtual networks stand left, services right; what leaves by an endpoint goes straight, what leaves
// by the tunnel goes down to the gateway, on-premises, and from there by the internet. On a narrow screen all stand below each
// other, and lines run along the right edge.

import { many, rate, s } from "./dom.js";

const NARROW = 640;
const MOST_NICS = 16;
const MOST_SERVICES = 8;
const ROW = 38;
const HEAD = 34;
const SUBNET = 42;

export class NetworkMap {
  /** `choose` is told the NIC that is chosen. */
  constructor(svg, place, { choose }) {
    this.svg = svg;
    this.place = place;
    this.choose = choose;
    this.lines = [];
    this.shown = null;
    new ResizeObserver(() => { if (this.network && place.clientWidth !== this.width) this.layout(); }).observe(place);
  }

  picture(picture) {
    this.network = picture;
    this.addresses = new Map(picture.services.flatMap((service) => service.addresses.map((address) => [address, service.name])));
    this.layout();
  }

  traffic(lines) {
    this.lines = lines;
    this.drawTraffic();
  }

  show(flow) {
    this.shown = flow;
    this.drawShown();
  }

  /** Names of the places that a flow passes. */
  stops(flow) {
    return this.way({ from: flow.ingress, path: flow.path, to: flow.egress }, flow.destination).map((id) => this.nodes.get(id)?.name ?? id.replace(/^.*:/, ""));
  }

  /** The places that traffic passes. A single flow's is followed beyond the tunnel, where its destination tells how it goes on. */
  way({ from, path, to }, destination) {
    const start = this.nodes.has(`nic:${from}`) ? `nic:${from}` : this.folded.get(from) ?? from;
    const end = (name) => (this.nodes.has(`nic:${name}`) ? `nic:${name}` : this.nodes.has(`service:${name}`) ? `service:${name}` : this.folded.get(name) ?? name);
    const target = end(to);
    switch (path) {
      case "endpoint": return target === "backbone" ? [start, "backbone", "services"] : [start, "backbone", target];
      case "tunnel": {
        if (from === "gateway") return ["site", "gateway", target];
        // An appliance, which sends on by a flow of its own.
        if (to !== "gateway") return [start, target];
        const address = destination?.replace(/^\[(.+)\]:\d+$/, "$1").replace(/^([^:]+):\d+$/, "$1");
        if (!address) return [start, "gateway", "site"];
        const service = this.addresses.get(address);
        if (service) return [start, "gateway", "site", "internet", end(service)];
        return this.isLearned(address) ? [start, "gateway", "site"] : [start, "gateway", "site", "internet"];
      }
      case "internet": return from === "internet" ? ["internet", "edge", target] : to === "internet" ? [start, "edge", "internet"] : [start, "edge", target];
      case "inside": return [start, target];
      default: return [from === "gateway" ? "site" : "internet", target];
    }
  }

  /** Whether an IPv4 address is of a prefix that the gateway has learned; IPv6 ones are compared by their text's beginning. */
  isLearned(address) {
    const number = (text) => text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
    return (this.network.gateway?.learned_routes ?? []).some((prefix) => {
      const [base, length] = prefix.split("/");
      if (base.includes(":") !== address.includes(":")) return false;
      if (base.includes(":")) return address.startsWith(base.replace(/:+$/, ":"));
      const size = 2 ** (32 - Number(length));
      return Math.floor(number(base) / size) === Math.floor(number(address) / size);
    });
  }

  layout() {
    const width = this.place.clientWidth;
    if (width === 0) return;
    this.width = width;
    const narrow = width < NARROW;
    const { network } = this;
    this.nodes = new Map();
    this.folded = new Map();
    const areas = [];
    const at = (id, x, y, more) => this.nodes.set(id, { id, x, y, ...more });
    const left = 10;
    const right = narrow ? width - 58 : Math.min(width * 0.4, 400);
    let y = 10;
    let nics = 0;
    // Who sends stands at the top, at the height of the services; the network of the gateway at the bottom.
    const gatewayNetwork = network.gateway?.virtual_network;
    const rank = (one) => (one.name === gatewayNetwork ? 1 : 0);
    for (const one of [...network.virtual_networks].sort((a, b) => rank(a) - rank(b))) {
      const top = y;
      y += HEAD;
      const subnets = [];
      for (const subnet of one.subnets) {
        const folded = subnet.nics.slice(Math.max(0, MOST_NICS - nics));
        const drawn = subnet.nics.slice(0, subnet.nics.length - folded.length);
        nics += drawn.length;
        const more = folded.length + subnet.more_nics;
        if (subnet.nics.length > 0 && drawn.length === 0 && areas.length > 8) continue;
        subnets.push({ subnet, y });
        y += SUBNET;
        for (const nic of drawn) {
          at(`nic:${nic.name}`, right - 20, y + 12, { name: nic.name, kind: "nic", about: nic.private_addresses.find((address) => !address.includes(":")) ?? nic.private_addresses[0], subnet });
          y += ROW;
        }
        if (more > 0) {
          at(`more:${subnet.name}`, right - 20, y + 12, { name: `${more} more`, kind: "more", about: "NICs" });
          folded.forEach((nic) => this.folded.set(nic.name, `more:${subnet.name}`));
          y += ROW;
        }
      }
      if (one.name === gatewayNetwork) {
        at("gateway", right - 20, y + 12, { name: "Gateway", kind: "hub", about: "of the tunnel" });
        y += ROW;
      }
      areas.push({ one, top, bottom: y + 4, subnets });
      y += 18;
    }
    const services = network.services.slice(0, MOST_SERVICES);
    network.services.slice(MOST_SERVICES).forEach((service) => this.folded.set(service.name, "services"));
    const others = network.backbone || network.services.length > MOST_SERVICES;
    const rows = services.length + (others ? 1 : 0);
    let height;
    const place = (x, top) => {
      services.forEach((service, row) => at(`service:${service.name}`, x, top + row * 46, { name: service.name, kind: "service", about: service.service }));
      if (others) at("services", x, top + services.length * 46, { name: "other services", kind: "service", about: "by the backbone" });
    };
    if (narrow) {
      const lower = y + 34;
      if (network.gateway) at("site", 54, lower, { name: "On-premises", kind: "place", label: "below" });
      at("internet", width * 0.52, lower, { name: "Internet", kind: "place", label: "below" });
      if (network.internet) at("edge", width - 40, lower - 32, { name: "edge", kind: "hub", label: "left" });
      place(width - 78, lower + 78);
      at("backbone", width - 14, lower + 30, { name: "Backbone", kind: "hub", label: "left", dir: "v" });
      height = lower + 78 + Math.max(rows, 1) * 46;
    } else {
      const end = width - 176;
      const middle = right + (end - right) * 0.5;
      const bottom = Math.max(y, 150 + rows * 46);
      place(end, 46);
      const firstNic = [...this.nodes.values()].find((node) => node.kind === "nic");
      at("backbone", middle, Math.min(46, firstNic?.y ?? 46), { name: "Backbone", kind: "hub", label: "above" });
      const low = Math.max(bottom - 62, 46 + rows * 46 + 30);
      const gateway = this.nodes.get("gateway");
      if (network.gateway) at("site", middle, Math.max(low, gateway?.y ?? 0), { name: "On-premises", kind: "place", label: "below" });
      const internetY = 46 + rows * 46 + (Math.max(low, gateway?.y ?? 0) - 46 - rows * 46) * 0.5;
      at("internet", end, internetY, { name: "Internet", kind: "place", about: "" });
      if (network.internet) at("edge", middle, internetY - 8, { name: "Internet edge", kind: "hub", label: "above" });
      height = Math.max(y, (this.nodes.get("site")?.y ?? 0) + 44, internetY + 40);
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${Math.ceil(height)}`);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("height", Math.ceil(height));
    this.trafficLayer = s("g", { class: "traffic" });
    this.shownLayer = s("g", { class: "shown" });
    this.svg.replaceChildren(
      s("g", { class: "areas" }, areas.map((area) => this.area(area, left, right))),
      s("g", { class: "base" }, this.base()), this.trafficLayer, this.shownLayer,
      s("g", { class: "stations" }, [...this.nodes.values()].map((node) => this.station(node))));
    this.drawTraffic();
    this.drawShown();
  }

  area({ one, top, bottom, subnets }, left, right) {
    const fits = (text, room) => (text.length * 6.6 > room ? `${text.slice(0, Math.max(1, Math.floor(room / 6.6) - 1))}…` : text);
    const width = right - left;
    return s("g", {}, s("rect", { class: "network", x: left, y: top, width, height: bottom - top, rx: 18 }),
      s("text", { class: "network-name", x: left + 16, y: top + 24 }, fits(one.name, width * 0.5)),
      s("text", { class: "fine", x: right - 16, y: top + 24, "text-anchor": "end" }, fits(one.address_space[0] ?? "", width * 0.45)),
      subnets.map(({ subnet, y }) => {
        const facts = [subnet.address_prefixes[0], subnet.network_security_group && `NSG ${subnet.network_security_group}`, subnet.nat_gateway && `NAT ${subnet.nat_gateway}`].filter(Boolean).join(" · ");
        const endpoints = subnet.endpoints.map((endpoint) => endpoint.service.replace("Microsoft.", "")).join(", ");
        return s("g", {}, s("path", { class: "rule", d: `M${left + 16} ${y}H${right - 16}` }),
          s("text", { class: "subnet-name", x: left + 16, y: y + 18 }, fits(subnet.name.split("/")[1], width * 0.5)),
          s("text", { class: "fine", x: left + 16, y: y + 34 }, fits(facts, width - 40)),
          endpoints ? s("text", { class: "endpoint-name path-endpoint", x: right - 16, y: y + 18, "text-anchor": "end" }, fits(`◆ ${endpoints}`, width * 0.5)) : null);
      }));
  }

  /** What is there, traffic or not: drawn thin. */
  base() {
    const pairs = [];
    const pair = (a, b, kind) => { if (this.nodes.has(a) && this.nodes.has(b)) pairs.push(s("path", { class: kind, d: this.curve(a, b) })); };
    pair("gateway", "site", "tube");
    pair("site", "internet", "hint");
    pair("edge", "internet", "hint");
    for (const node of this.nodes.values()) {
      if (node.kind === "service") { pair("backbone", node.id, "hint"); pair("internet", node.id, "hint"); }
      if (node.kind === "nic" && node.subnet.endpoints.length > 0) pair(node.id, "backbone", "hint path-endpoint");
      else if (node.kind === "nic" && node.subnet.route_table) pair(node.id, "gateway", "hint");
    }
    return pairs;
  }

  station(node) {
    const { x, y, kind } = node;
    const left = ["nic", "more"].includes(kind) || node.id === "gateway" || node.label === "left";
    const side = node.label === "above" || node.label === "below";
    const shape = kind === "hub" ? s("rect", { class: "station", x: x - 8, y: y - 8, width: 16, height: 16, rx: 4 })
      : kind === "place" ? s("circle", { class: "station", cx: x, cy: y, r: 10 })
        : kind === "service" ? s("path", { class: "station", d: `M${x} ${y - 10}l10 10l-10 10l-10 -10z` })
          : s("circle", { class: "station", cx: x, cy: y, r: 7 });
    const words = side
      ? [s("text", { class: "name", x, y: node.label === "above" ? y - 16 : y + 28, "text-anchor": "middle" }, node.name)]
      : [s("text", { class: "name", x: left ? x - 18 : x + 18, y: node.about ? y - 2 : y + 5, "text-anchor": left ? "end" : "start" }, node.name),
        node.about ? s("text", { class: "fine", x: left ? x - 18 : x + 18, y: y + 13, "text-anchor": left ? "end" : "start" }, node.about) : null];
    if (node.kind === "service" && this.width < NARROW) words.forEach((word) => { if (word) { word.setAttribute("x", x - 18); word.setAttribute("text-anchor", "end"); } });
    const group = s("g", { class: `stop ${kind}`, "data-id": node.id }, shape, words);
    if (kind === "nic") {
      group.setAttribute("role", "button");
      group.setAttribute("tabindex", "0");
      group.setAttribute("aria-label", `${node.name}, ${node.about}, subnet ${node.subnet.name}: look up from here`);
      const choose = () => { this.choose(node.name); document.getElementById("lookup-to").focus(); };
      group.addEventListener("click", choose);
      group.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } });
    }
    return group;
  }

  curve(from, to) {
    const [a, b] = [this.nodes.get(from), this.nodes.get(to)];
    if (b.dir === "v") return `M${a.x} ${a.y}C${b.x} ${a.y} ${b.x} ${a.y} ${b.x} ${a.y + Math.sign(b.y - a.y) * Math.min(26, Math.abs(b.y - a.y))}L${b.x} ${b.y}`;
    if (a.dir === "v") return `M${a.x} ${a.y}L${a.x} ${b.y - Math.sign(b.y - a.y) * Math.min(26, Math.abs(b.y - a.y))}C${a.x} ${b.y} ${a.x} ${b.y} ${b.x} ${b.y}`;
    const across = b.x - a.x;
    const down = b.y - a.y;
    if (from === "gateway" && this.width < NARROW) return `M${a.x} ${a.y}C${a.x} ${a.y + 40} ${b.x} ${b.y - 44} ${b.x} ${b.y}`;
    if (Math.abs(across) < 60 && down !== 0) {
      // Both in one column: around the side where no names are.
      const bulge = Math.min(34, 14 + Math.abs(down) * 0.12);
      const x = a.kind === "place" ? Math.min(a.x, b.x) - bulge : Math.max(a.x, b.x) + bulge;
      const bend = Math.min(24, Math.abs(down) / 2) * Math.sign(down);
      return `M${a.x} ${a.y}C${x} ${a.y} ${x} ${a.y} ${x} ${a.y + bend}L${x} ${b.y - bend}C${x} ${b.y} ${x} ${b.y} ${b.x} ${b.y}`;
    }
    const middle = across * 0.5;
    return `M${a.x} ${a.y}C${a.x + middle} ${a.y} ${b.x - middle} ${b.y} ${b.x} ${b.y}`;
  }

  segments(way) {
    const known = way.filter((id) => this.nodes.has(id));
    return known.slice(1).map((id, index) => [known[index], id]).filter(([a, b]) => a !== b);
  }

  drawTraffic() {
    if (!this.trafficLayer) return;
    const sums = new Map();
    for (const line of this.lines) {
      for (const [from, to] of this.segments(this.way(line))) {
        const key = `${line.path} ${from} ${to}`;
        const sum = sums.get(key) ?? { path: line.path, from, to, rate: 0, flows: 0 };
        sum.rate += line.rate;
        sum.flows += line.flows;
        sums.set(key, sum);
      }
    }
    // Elements stay, so that what moves goes on moving.
    this.drawn ??= new Map();
    const fresh = this.trafficLayer.childElementCount === 0;
    if (fresh) this.drawn.clear();
    for (const [key, group] of this.drawn) if (!sums.has(key)) { group.remove(); this.drawn.delete(key); }
    for (const [key, sum] of sums) {
      let group = this.drawn.get(key);
      if (!group) {
        const d = this.curve(sum.from, sum.to);
        group = s("g", {}, s("title", {}), s("path", { class: "line", d }), s("path", { class: "bore", d }), s("path", { class: "pulse", d }));
        this.trafficLayer.append(group);
        this.drawn.set(key, group);
      }
      const width = sum.rate > 0 ? Math.min(11, 2.5 + 1.5 * Math.log10(1 + sum.rate / 2000)) : 2;
      group.setAttribute("class", `segment path-${sum.path} ${sum.rate > 0 ? "busy" : "idle"}`);
      group.children[0].textContent = `${many(sum.flows, "flow")}, ${rate(sum.rate)}`;
      group.children[1].setAttribute("stroke-width", width.toFixed(1));
      group.children[2].setAttribute("stroke-width", Math.max(0, width - 3).toFixed(1));
      group.children[3].setAttribute("stroke-width", Math.max(1.5, width * 0.4).toFixed(1));
    }
  }

  drawShown() {
    if (!this.shownLayer) return;
    const flow = this.shown;
    const key = flow && `${flow.ingress} ${flow.path} ${flow.egress} ${flow.destination} ${this.width} ${this.network.generation}`;
    if (this.shownKey === key && (key === null || this.shownLayer.childElementCount > 0)) return;
    this.shownKey = key;
    this.svg.classList.toggle("focused", Boolean(flow));
    const way = flow ? this.way({ from: flow.ingress, path: flow.path, to: flow.egress }, flow.destination) : [];
    this.shownLayer.setAttribute("class", flow ? `shown path-${flow.path}` : "shown");
    this.shownLayer.setAttribute("data-way", way.join(" "));
    this.shownLayer.replaceChildren(...this.segments(way).flatMap(([from, to]) => {
      const d = this.curve(from, to);
      return [s("path", { class: "halo", d }), s("path", { class: "line", d }), s("path", { class: "pulse", d })];
    }));
    const on = new Set(way);
    for (const stop of this.svg.querySelectorAll(".stop")) stop.classList.toggle("on", on.has(stop.dataset.id));
  }
}
