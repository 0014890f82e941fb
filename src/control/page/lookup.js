// Which route and which rule decide for an address, and why the others do not.

import { get } from "./api.js";
import { byId, h, pathLabel } from "./dom.js";

const HAS_PORTS = ["tcp", "udp"];

export class Lookup {
  constructor() {
    this.form = byId("lookup-form");
    this.from = byId("lookup-from");
    this.to = byId("lookup-to");
    this.protocol = byId("lookup-protocol");
    this.port = byId("lookup-port");
    this.answer = byId("lookup-answer");
    this.effective = byId("effective");
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.ask(); });
    this.from.addEventListener("change", () => { this.answer.replaceChildren(); this.asked = null; this.tables(); });
    this.protocol.addEventListener("change", () => { this.port.disabled = !HAS_PORTS.includes(this.protocol.value); });
  }

  set(picture) {
    this.paths = picture.paths;
    const subnets = picture.virtual_networks.flatMap((network) => network.subnets);
    const before = this.from.value;
    const names = (name, list) => (list.length > 0 ? h("optgroup", { label: name }, list.map((one) => h("option", {}, one))) : null);
    const nics = subnets.flatMap((subnet) => subnet.nics.map((nic) => nic.name));
    const choices = [names("NICs", nics), names("Subnets", subnets.map((subnet) => subnet.name))].filter(Boolean);
    if (choices.map((group) => group.textContent).join() !== [...this.from.children].map((group) => group.textContent).join()) this.from.replaceChildren(...choices);
    if ([...this.from.options].some((option) => option.value === before)) this.from.value = before;
    this.tables();
    // What was asked before may have another answer now.
    if (this.asked) this.ask();
  }

  choose(from) {
    if (![...this.from.options].some((option) => option.value === from)) return;
    this.from.value = from;
    this.answer.replaceChildren();
    this.asked = null;
    this.tables();
  }

  askFor(flow) {
    const [address, port] = split(flow.destination);
    this.choose(flow.ingress);
    this.to.value = address;
    this.protocol.value = flow.protocol === "icmpv6" ? "icmp" : flow.protocol;
    if (port) this.port.value = port;
    this.port.disabled = !HAS_PORTS.includes(this.protocol.value);
    if (this.protocol.value && this.from.value === flow.ingress) this.ask();
  }

  async ask() {
    const [from, to, protocol] = [this.from.value, this.to.value.trim(), this.protocol.value];
    if (!from || !to) return;
    const port = HAS_PORTS.includes(protocol) ? this.port.value : undefined;
    this.asked = `${from} ${to} ${protocol} ${port}`;
    const asked = this.asked;
    const [explained, hop, ruled] = await Promise.allSettled([
      get("v1/explain", { from, to, protocol, port }), get("v1/next-hop", { from, to, protocol }),
      get("v1/verify", { from, to, protocol, port, direction: "outbound" }),
    ]);
    if (asked !== this.asked) return;
    if (hop.status === "rejected") {
      this.answer.replaceChildren(h("p", { class: "problem" }, hop.reason.message));
      return;
    }
    this.show(hop.value, explained.value ?? null, ruled.value ?? null, explained.reason?.message);
    await this.tables({ hop: hop.value, ruled: ruled.value, protocol, port });
  }

  show(hop, explained, ruled, why) {
    const verdict = explained?.verdict;
    const said = !verdict ? why : verdict.verdict === "forwarded"
      ? `Leaves by ${verdict.port}; the next network sees ${verdict.source_seen}.` : `Dropped: ${verdict.text} (${verdict.reason}).`;
    const routes = [];
    if (hop.route) routes.push(this.route(hop.route, true, hop.unroutable ? `wins, but: ${hop.unroutable}` : "wins"));
    routes.push(...hop.candidates.map((candidate) => this.route(candidate, false, candidate.reason)));
    const groups = (ruled?.groups ?? []).map((group) => h("li", { class: group.access === "Deny" ? "lost" : "won" },
      h("span", { class: "sign", "aria-hidden": "true" }, group.access === "Deny" ? "✕" : "✓"),
      `${group.networkSecurityGroup} (${group.association}): `, group.access ? `${group.access} by ${group.ruleName?.replace(/.*\//, "") ?? "no rule"}, priority ${group.priority ?? "–"}` : "not asked, denied before"));
    this.answer.replaceChildren(
      h("p", { class: `verdict ${verdict?.verdict ?? ""}` }, hop.route ? pathLabel(this.paths[hop.nextHopType]) : null, ` ${hop.from} → ${hop.to}: ${hop.nextHopType}${hop.nextHopIpAddress ? ` ${hop.nextHopIpAddress}` : ""}. ${said ?? ""}`),
      h("div", { class: "columns" },
        h("div", {}, h("h3", {}, "Routes that match"), routes.length > 0 ? h("ul", { class: "candidates" }, routes) : h("p", { class: "empty" }, "No route matches.")),
        h("div", {}, h("h3", {}, "Security rules"), groups.length > 0 ? h("ul", { class: "rulings" }, groups) : h("p", { class: "empty" }, "No network security group is asked."),
          explained ? h("details", {}, h("summary", {}, "Every stage"), h("ol", { class: "stages" }, explained.stages.map((stage) => h("li", {}, stageText(stage))))) : null)));
  }

  route(route, wins, reason) {
    const via = [route.name, route.service, route.serviceTag].filter(Boolean).join(" ");
    return h("li", { class: wins ? "won" : "lost" }, h("span", { class: "sign", "aria-hidden": "true" }, wins ? "✓" : "✕"),
      h("div", {}, h("b", {}, route.addressPrefix), ` ${route.nextHopType} `, h("span", { class: "fine" }, `${route.source}${via ? `, ${via}` : ""}`), h("br"), h("span", { class: "why" }, reason)));
  }

  /** The effective routes and rules of what is chosen; what decides for the asked address is marked. */
  async tables(asked) {
    const of = this.from.value;
    if (!of) return;
    const [routes, groups] = await Promise.allSettled([get("v1/routes", { of }), get("v1/nsg", { of })]);
    if (of !== this.from.value) return;
    const open = new Set([...this.effective.querySelectorAll("details[open]")].map((details) => details.dataset.of));
    const parts = [];
    if (routes.status === "fulfilled") parts.push(this.routes(routes.value, asked));
    if (groups.status === "fulfilled") parts.push(...groups.value.groups.map((group) => this.rules(group, asked)));
    for (const part of parts) part.open = open.has(part.dataset.of);
    this.effective.replaceChildren(...parts);
  }

  routes(answer, asked) {
    const winner = asked?.hop.route;
    const items = answer.routes.slice(0, 100).map(({ route, service, why }) => {
      const prefixes = route.addressPrefix;
      const won = winner && route.nextHopType === winner.nextHopType && prefixes.includes(winner.addressPrefix) && route.source === winner.source && (route.name ?? null) === (winner.name ?? null);
      const what = route.destinationServiceTags[0] ?? (prefixes.length > 1 ? `${prefixes.length} prefixes` : prefixes[0]);
      return h("li", { class: won ? "won" : route.state === "Active" ? null : "lost" }, h("span", { class: "sign", "aria-hidden": "true" }, won ? "✓" : ""),
        h("div", {}, h("b", {}, what), ` ${route.nextHopType} `, h("span", { class: "fine" }, [route.state, route.source, route.name, service, route.nextHopIpAddress[0], route.endpointSource && `source ${route.endpointSource}`].filter(Boolean).join(", ")),
          won ? h("strong", {}, " wins") : null, why.length > 0 ? [h("br"), h("span", { class: "why" }, why.join("; "))] : null));
    });
    const left = answer.routes.length - items.length;
    return h("details", { "data-of": "routes" }, h("summary", {}, `Effective routes of ${answer.subnet} (${answer.routes.length})`), h("ul", { class: "candidates" }, items), left > 0 ? h("p", { class: "fine" }, `and ${left} more: sidestep routes ${answer.subnet}`) : null);
  }

  rules(group, asked) {
    const name = group.networkSecurityGroup.id;
    const association = group.association.subnet ? "subnet" : "networkInterface";
    const ruling = asked?.ruled?.groups.find((ruled) => ruled.networkSecurityGroup === name && ruled.association === association);
    const items = group.effectiveSecurityRules.slice(0, 200).map((rule) => {
      const short = rule.name.replace(/.*\//, "");
      const reason = ruling && whyNot(rule, short, ruling, asked);
      const side = (list, one) => (list.length > 0 ? list.slice(0, 4).join(" ") + (list.length > 4 ? " …" : "") : one ?? "*");
      return h("li", { class: reason === "wins" ? "won" : null }, h("span", { class: "sign", "aria-hidden": "true" }, reason === "wins" ? "✓" : ""),
        h("div", {}, h("b", {}, `${rule.priority} ${short}`), ` ${rule.direction} ${rule.access} `, h("span", { class: "fine" }, `${rule.protocol} ${side(rule.sourceAddressPrefixes, rule.sourceAddressPrefix)} → ${side(rule.destinationAddressPrefixes, rule.destinationAddressPrefix)} ports ${side(rule.destinationPortRanges, rule.destinationPortRange)}`),
          reason ? [h("br"), reason === "wins" ? h("strong", {}, "decides") : h("span", { class: "why" }, reason)] : null));
    });
    return h("details", { "data-of": `${name} ${association}` }, h("summary", {}, `Security rules of ${name}, group of ${group.association.subnet?.id ?? group.association.networkInterface?.id} (${group.effectiveSecurityRules.length})`), h("ul", { class: "candidates" }, items));
  }

  focus() { this.to.focus(); this.to.select(); }
}

/** Why a rule does not decide about an outbound packet that a group has ruled on. */
function whyNot(rule, short, ruling, asked) {
  if (rule.direction !== "Outbound") return "other direction";
  if (!ruling.access) return "not asked: an earlier group denies";
  if (short === ruling.ruleName?.replace(/.*\//, "") && rule.priority === ruling.priority) return "wins";
  if (ruling.priority !== null && rule.priority > ruling.priority) return "not reached: a rule of lower number decides";
  if (rule.protocol !== "All" && rule.protocol.toLowerCase() !== asked.protocol) return "other protocol";
  const port = Number(asked.port);
  const within = (range) => { const [low, high] = range.split("-").map(Number); return port >= low && port <= (high ?? low); };
  const ranges = rule.destinationPortRanges.length > 0 ? rule.destinationPortRanges : [rule.destinationPortRange ?? "0-65535"];
  if (asked.port && !ranges.some((range) => range === "*" || within(range))) return "other port";
  return "other addresses";
}

/** Address and port of a side of a flow; IPv6 addresses without a port have colons of their own. */
function split(text) {
  const bracketed = text.match(/^\[(.+)\]:(\d+)$/);
  if (bracketed) return bracketed.slice(1);
  const parts = text.split(":");
  return parts.length === 2 ? parts : [text, undefined];
}

function stageText(stage) {
  return `${stage.stage}: ${stage.decision}${stage.details.length > 0 ? ` (${stage.details.join("; ")})` : ""}`;
}
