// The switch of a service endpoint: tried first, confirmed then. Nothing is switched by one press alone.

import { post } from "./api.js";
import { byId, h, many } from "./dom.js";

export class Endpoints {
  /** `done` is called once something was switched. */
  constructor({ done }) {
    this.done = done;
    this.place = byId("endpoints");
    this.list = h("ul", { class: "switch-list" });
    this.subnet = h("select", { id: "other-subnet" });
    this.service = h("select", { id: "other-service" });
    this.other = h("details", { class: "other" }, h("summary", {}, "Another subnet or service"),
      h("form", { onsubmit: (event) => { event.preventDefault(); this.tryOther(event.submitter); } },
        h("label", {}, h("span", {}, "Subnet"), this.subnet), h("label", {}, h("span", {}, "Service"), this.service),
        h("button", { type: "submit" }, "Try")));
    this.panel = h("div", { class: "trial", hidden: true, role: "group", "aria-label": "Dry run" });
    this.panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { event.stopPropagation(); this.leave(); }
    });
    this.result = h("p", { class: "result", role: "status" });
    this.failure = h("p", { class: "problem", role: "alert", hidden: true });
    this.place.append(this.list, this.panel, this.result, this.failure, this.other);
    this.rows = new Map();
  }

  set(picture) {
    this.picture = picture;
    const rows = [];
    for (const subnet of picture.virtual_networks.flatMap((network) => network.subnets)) {
      if (subnet.name.endsWith("/GatewaySubnet")) continue;
      const on = subnet.endpoints.map((endpoint) => endpoint.service);
      const known = picture.services.map((service) => service.service);
      // Those that could be switched and those that are; subnets without anybody in them stand in the list of others.
      const services = new Set([...on, ...(subnet.nics.length > 0 ? known : [])]);
      for (const service of services) rows.push({ subnet: subnet.name, service, on: on.includes(service), endpoint: subnet.endpoints.find((endpoint) => endpoint.service === service) });
    }
    const shown = rows.slice(0, 24);
    const wanted = new Set();
    shown.forEach((row, index) => {
      const key = `${row.subnet} ${row.service}`;
      wanted.add(key);
      const item = this.rows.get(key) ?? this.item(key);
      item.row = row;
      item.state.textContent = row.on ? "on" : "off";
      item.state.dataset.on = row.on;
      item.about.textContent = row.on ? `source ${row.endpoint.source}${row.endpoint.locations.length > 0 ? `, ${row.endpoint.locations.join(" ")}` : ""}` : "not on this subnet";
      item.button.textContent = row.on ? "Try to disable" : "Try to enable";
      item.button.setAttribute("aria-label", `${item.button.textContent} ${row.service} on ${row.subnet}`);
      // What stands in its place is left there, or it would lose the focus.
      if (this.list.children[index] !== item.element) this.list.insertBefore(item.element, this.list.children[index] ?? null);
    });
    for (const [key, item] of this.rows) if (!wanted.has(key)) { item.element.remove(); this.rows.delete(key); }
    const choices = (select, names) => {
      if (names.join() === [...select.options].map((option) => option.value).join()) return;
      const before = select.value;
      select.replaceChildren(...names.map((name) => h("option", {}, name)));
      if (names.includes(before)) select.value = before;
    };
    choices(this.subnet, picture.virtual_networks.flatMap((network) => network.subnets.map((subnet) => subnet.name)));
    choices(this.service, picture.endpoint_services);
  }

  item(key) {
    const item = { state: h("span", { class: "on-off" }), about: h("span", { class: "fine" }), button: h("button", { type: "button" }) };
    item.element = h("li", {}, h("div", {}, h("b", {}, key.split(" ")[1].replace("Microsoft.", "")), h("span", { class: "fine" }, ` on ${key.split(" ")[0]} `), item.state, h("br"), item.about), item.button);
    item.button.addEventListener("click", () => this.try(item.row.subnet, item.row.service, !item.row.on, item.button));
    this.rows.set(key, item);
    return item;
  }

  tryOther(button) {
    const [subnet, service] = [this.subnet.value, this.service.value];
    const all = this.picture.virtual_networks.flatMap((network) => network.subnets);
    const on = all.find((other) => other.name === subnet)?.endpoints.some((endpoint) => endpoint.service === service);
    this.try(subnet, service, !on, button);
  }

  async try(subnet, service, enabled, button) {
    this.button = button;
    this.say("");
    const what = `${enabled ? "Enable" : "Disable"} ${service} on ${subnet}`;
    this.panel.hidden = false;
    this.panel.replaceChildren(h("h3", {}, what), h("p", { class: "fine", role: "status" }, "Trying …"));
    this.trial = `${subnet} ${service} ${enabled} ${Math.random()}`;
    const trial = this.trial;
    try {
      const answer = await post("endpoint", { subnet, service, enabled, dry_run: true });
      if (trial === this.trial) this.show(answer, what);
    } catch (error) {
      if (trial !== this.trial) return;
      this.leave();
      this.fail(`Dry run: ${error.message}`);
    }
  }

  show(answer, what) {
    const confirm = h("button", { type: "button", class: "main", id: "confirm", "aria-label": `Confirm: ${what}` }, `Confirm: ${answer.enabled ? "enable" : "disable"}`);
    confirm.addEventListener("click", () => this.confirm(answer, confirm));
    const leave = h("button", { type: "button", onclick: () => this.leave() }, "Leave it");
    const routes = answer.routes.flatMap((change) => [
      h("li", { class: "of" }, change.subnet),
      ...change.removed.map((line) => h("li", { class: "minus" }, h("span", { class: "sign", "aria-label": "goes" }, "−"), line)),
      ...change.added.map((line) => h("li", { class: "plus" }, h("span", { class: "sign", "aria-label": "comes" }, "+"), line)),
    ]);
    const cut = answer.flows_cut.slice(0, 12);
    const flows = `${many(answer.flows_reset, "connection is reset", "connections are reset")}, ${many(answer.flows_moved, "other flow moves", "other flows move")}, ${many(answer.flows_kept, "lives", "live")} on.`;
    this.panel.replaceChildren(h("h3", {}, what),
      h("p", { class: "summary" }, answer.changed ? `Dry run: routes of ${many(answer.routes.length, "subnet")} change. ${flows}` : "Dry run: it is so already; nothing would change."),
      routes.length > 0 ? h("ul", { class: "diff", "aria-label": "Routes that change" }, routes) : null,
      cut.length > 0 ? h("ul", { class: "cut", "aria-label": "Flows that would be cut" }, cut.map((flow) => h("li", {}, `${flow.protocol} ${flow.source} → ${flow.destination} `, h("span", { class: "fine" }, flow.next_hop_type)))) : null,
      answer.flows_cut.length > cut.length ? h("p", { class: "fine" }, `and ${many(answer.flows_reset + answer.flows_moved - cut.length, "more", "more")}`) : null,
      h("div", { class: "buttons" }, answer.changed ? confirm : null, leave));
    (answer.changed ? confirm : leave).focus();
  }

  /** The node refuses it where another generation is in force than the one that was tried. */
  async confirm(trial, button) {
    button.disabled = true;
    try {
      const answer = await post("endpoint", { subnet: trial.subnet, service: trial.service, enabled: trial.enabled, dry_run: false, generation: trial.generation });
      this.leave();
      this.say(`${answer.service} on ${answer.subnet} is ${answer.enabled ? "on" : "off"} since generation ${answer.generation}: ${answer.flows_reset} reset, ${answer.flows_moved} moved, ${answer.flows_kept} kept${answer.flows_complete ? "" : "; not all workers have answered, the numbers are too low"}.`);
      await this.done();
    } catch (error) {
      this.leave();
      this.fail(`Not switched: ${error.message}`);
    }
  }

  leave() {
    this.trial = null;
    this.panel.hidden = true;
    this.panel.replaceChildren();
    this.button?.focus();
  }

  say(text) {
    this.result.textContent = text;
    this.failure.hidden = true;
  }

  fail(text) {
    this.result.textContent = "";
    this.failure.textContent = text;
    this.failure.hidden = false;
  }

  focus() { (this.list.querySelector("button") ?? this.other.querySelector("summary")).focus(); }
}
