// The page: asks the node while somebody looks, and hands what it tells to those who show it.

import { get, hasToken } from "./api.js";
import { PATHS, byId, clock, count, h, milliseconds, pathName, rate, say, swatch } from "./dom.js";
import { Endpoints } from "./endpoints.js";
import { Flows, keyOf } from "./flows.js";
import { Lookup } from "./lookup.js";
import { NetworkMap } from "./map.js";
import { Plot, marksOf } from "./plot.js";
import * as tables from "./tables.js";

/** The node looks once a second; asked more often, it tells of a change sooner. */
const PERIOD = 500;
/** After a switch its flows go on with their next packets. */
const SETTLING = [120, 300, 600];

const state = { picture: null, live: null, since: 0, paused: false, looked: null, kept: null };

const map = new NetworkMap(byId("map"), byId("canvas"), { choose: (nic) => lookup.choose(nic) });
const lookup = new Lookup();
const flows = new Flows({
  look: (flow) => { state.looked = flow && keyOf(flow); highlight(); },
  choose: (flow) => {
    state.kept = state.kept === keyOf(flow) ? null : keyOf(flow);
    flows.keep(state.kept);
    highlight();
    if (state.kept) lookup.askFor(flow);
  },
});
const endpoints = new Endpoints({ done: updateAnew });
const throughput = new Plot(byId("throughput"), { label: "Throughput by path over three minutes", format: rate, least: 1000 });
const latency = new Plot(byId("latency"), {
  label: "Time to the first answer of new flows by path over three minutes", format: milliseconds, least: 10, sparse: true,
  empty: "No new flow of a NIC has been answered yet.",
});

const board = new Map(PATHS.map((path) => {
  const value = h("b", { class: "value" });
  const about = h("span", { class: "fine" });
  byId("board").append(h("div", { role: "listitem", class: `lane path-${path.id}` }, h("span", { class: "name" }, swatch(path.id), path.name), value, about));
  return [path.id, { value, about, path }];
}));

/** Takes moments `{ time, rates, latency: [{ path, count, least_us, median_us, p90_us }] }` into the plots. */
function take(moments) {
  for (const moment of moments) {
    for (const { id } of PATHS) throughput.add(id, moment.time, moment.rates[id] ?? 0);
    for (const { path, count: number, least_us, median_us, p90_us } of moment.latency ?? []) {
      // The middle one: a single slow handshake is no change of the path.
      latency.add(path, moment.time, median_us, [least_us, p90_us], number === 1 ? "" : ` (${milliseconds(least_us)} – ${milliseconds(p90_us)}, ${count(number)} flows)`);
    }
  }
}

function showState(name, text) {
  const element = byId("state");
  if (element.dataset.state !== name) element.dataset.state = name;
  say(element, text);
}

function problem(text) {
  byId("problem").hidden = !text;
  say(byId("problem"), text ?? "");
}

/** The flow under the pointer or the focus, else the one that is kept. */
function highlight() {
  const key = state.looked ?? state.kept;
  const flow = key && flows.current(key);
  map.show(flow ?? null);
  say(byId("route"), flow ? describe(flow) : state.live && state.live.flows.length > 0 ? "Point at a flow, or walk through the list with f and the arrow keys, to see its path." : "");
  byId("route").className = flow ? `route path-${flow.path}` : "route";
}

function describe(flow) {
  const stops = map.stops(flow).join(" → ");
  const seen = flow.presented === flow.source ? "source as sent" : `source seen as ${flow.presented}`;
  return `${pathName(flow.path)}: ${flow.protocol} ${flow.source} → ${flow.destination} by ${stops}; ${flow.next_hop_type}${flow.endpoint ? ` (${flow.endpoint})` : ""}, ${seen}.`;
}

let updating = null;

/** One update at a time, so that an older answer never comes after a newer one. */
function update() {
  updating ??= step().finally(() => { updating = null; });
  return updating;
}

/** What is so after a change, not what was on its way before it. */
async function updateAnew() {
  await updating?.catch(() => {});
  await update();
  for (const after of SETTLING) setTimeout(update, after);
}

async function step() {
  try {
    const live = await get("live", { since: state.since });
    if (!state.picture || live.generation !== state.picture.generation) {
      state.picture = await get("picture");
      say(byId("what"), `${state.picture.document} · ${state.picture.location} · generation ${state.picture.generation}`);
      byId("main").hidden = false;
      map.picture(state.picture);
      endpoints.set(state.picture);
      lookup.set(state.picture);
    }
    show(live);
    problem(null);
    showState(state.paused ? "paused" : "live", state.paused ? "paused" : "live");
  } catch (error) {
    if (error.status === 401) {
      problem("This page has no token of the running node: open the URL that `sidestep run --page` has printed.");
      showState("lost", "no access");
    } else if (error.status !== undefined) {
      showState("lost", "no answer");
      problem(`${error.message}; what is shown is of ${state.live ? clock(state.live.time) : "never"}.`);
    } else {
      throw error;
    }
  }
}

function show(live) {
  state.live = live;
  const newest = live.moments.at(-1);
  take(live.moments);
  if (newest) state.since = newest.time;
  const marks = marksOf(live.changes);
  for (const plot of [throughput, latency]) { plot.mark(marks); plot.now(live.time); }
  const now = newest ?? state.newest;
  state.newest = now;
  for (const [id, { value, about, path }] of board) {
    const lines = live.lines.filter((line) => line.path === id);
    const number = lines.reduce((sum, line) => sum + line.flows, 0);
    say(value, rate(now?.rates[id] ?? 0));
    say(about, `${now?.estimated ? "estimated, " : ""}${number === 0 ? path.about : number === 1 ? "1 flow" : `${number} flows`}`);
  }
  map.traffic(live.lines);
  flows.set(live);
  highlight();
  tables.ports(live);
  tables.drops(live);
  tables.changes(live);
}

function pause() {
  state.paused = !state.paused;
  byId("pause").setAttribute("aria-pressed", String(state.paused));
  say(byId("pause"), state.paused ? "Go on" : "Pause");
  showState(state.paused ? "paused" : "live", state.paused ? "paused" : "live");
  if (!state.paused) update();
}

const help = byId("help");
const keys = {
  "/": () => { byId("search").focus(); byId("search").select(); },
  "?": () => help.showModal(),
  a: () => lookup.focus(),
  e: () => endpoints.focus(),
  f: () => flows.focus(),
  p: pause,
  Escape: () => { state.kept = null; flows.keep(null); highlight(); },
};

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  const types = target instanceof Element && target.matches("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || help.open || !Object.hasOwn(keys, key) || (types && key !== "Escape") || byId("main").hidden) return;
  event.preventDefault();
  if (types) target.blur();
  keys[key]();
});
byId("pause").addEventListener("click", pause);
byId("keys").addEventListener("click", () => help.showModal());

if (hasToken()) {
  update();
} else {
  problem("This page has no token: open the URL that `sidestep run --page` has printed.");
  showState("lost", "no access");
}
// Nobody looks at a hidden page, so nobody asks.
setInterval(() => { if (!state.paused && !document.hidden && hasToken()) update(); }, PERIOD);
document.addEventListener("visibilitychange", () => { if (!document.hidden && !state.paused && hasToken()) update(); });
