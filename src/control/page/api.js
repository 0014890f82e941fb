// Asking the node. The token comes behind # in the URL, which browsers do not send, and stays in this tab alone.

const KEY = "sidestep token";

function token() {
  const given = location.hash.slice(1);
  if (/^[0-9a-f]{32}$/.test(given)) {
    sessionStorage.setItem(KEY, given);
    // Not to be in the history, in a screenshot or in a copied address.
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY) ?? "";
}

export class Refused extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

async function ask(method, path, parameters, patience) {
  const wanted = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  const query = new URLSearchParams(wanted).toString();
  let response;
  try {
    response = await fetch(`/api/${path}${query ? `?${query}` : ""}`, {
      method, headers: { Authorization: `Bearer ${token()}` }, cache: "no-store", credentials: "omit",
      signal: AbortSignal.timeout(patience),
    });
  } catch {
    throw new Refused(0, "the node does not answer");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, answer.error ?? `the node answers ${response.status}`);
  return answer;
}

export const get = (path, parameters = {}) => ask("GET", path, parameters, 10_000);
export const hasToken = () => token() !== "";
/** A dry run may have to wait until workers have looked at a million flows. */
export const post = (path, parameters) => ask("POST", path, parameters, 60_000);
