// The bar at the bottom: how did the edge answer for what is on the screen?
//
// A page cannot read the header of its own navigation, and asking the edge again would be another request with another
// answer. But the browser keeps the response it is showing in its own cache, and `only-if-cached` hands that very
// response out, header and all, without a byte on the network. So what is shown here is what came with this page.

const $ = (id) => document.getElementById(id);

async function kept(url) {
  try {
    const response = await fetch(url, { cache: "only-if-cached", mode: "same-origin", credentials: "same-origin" });
    return response.status === 504 ? null : response.headers;
  } catch {
    return null;
  }
}

// Cache-Status (RFC 9211): a list of caches, the one nearest the origin first. Ours is the last.
function parse(value) {
  const member = value.split(/,(?=(?:[^"]*"[^"]*")*[^"]*$)/).pop().trim();
  const [name, ...params] = member.split(";").map((part) => part.trim());
  const status = { name };
  for (const param of params) {
    const [key, item = "?1"] = param.split(/=(.*)/s);
    status[key] = item === "?1" ? true : /^-?\d+$/.test(item) ? Number(item) : item.replace(/^"|"$/g, "");
  }
  return status;
}

const seconds = (n) => (n < 1 ? "less than a second" : n === 1 ? "1 second" : `${n} seconds`);

// How long the edge may answer by itself: what the origin told it, or everybody.
function lifetime(headers) {
  const told = headers.get("cdn-cache-control") ?? headers.get("cache-control") ?? "";
  const found = /(?:s-maxage|max-age)=(\d+)/.exec(told);
  return found ? ` for ${seconds(Number(found[1]))}` : "";
}

function explain(status, headers) {
  const age = Number(headers.get("age") ?? 0);
  const ttl = status.ttl ?? 0;
  const fetched = status["fwd-status"];
  if (status.hit && ttl >= 0)
    return ["hit", "HIT", `Served from the edge's memory, ${seconds(age)} old. The origin did not see this request.`];
  if (status.hit)
    return ["reval", "STALE HIT", `Shown at once from the edge's memory though ${seconds(-ttl)} past its time. The edge is fetching a new one meanwhile: reload.`];
  if (status.collapsed)
    return ["hit", "SHARED", "Somebody else had just asked. Both of you got the one answer the origin gave."];
  if (fetched === 304)
    return ["reval", "REVALIDATED", "The edge's copy had expired. The origin said “not modified”, so the body still came from the edge."];
  if (status.fwd === "stale")
    return ["miss", "REFRESHED", "The edge's copy had expired and the origin had a newer one, which the edge now keeps."];
  if (status.fwd === "vary-miss" && status.stored)
    return ["miss", "MISS", "The edge had this page, but not in your language. The origin made it; now the edge keeps both."];
  if (status.stored)
    return ["miss", "MISS", `The edge had no copy. The origin made the page, and the edge keeps it${lifetime(headers)}. Reload.`];
  return ["pass", "PASS", "Not for caches: the edge passed your request to the origin and kept nothing."];
}

function put(word, [kind, title, text]) {
  word.className = `word ${kind}`;
  word.textContent = title;
  $("edge-text").textContent = text;
}

function row(list, name, value) {
  const dt = document.createElement("dt");
  const dd = document.createElement("dd");
  dt.textContent = name;
  dd.textContent = value;
  list.append(dt, dd);
}

async function thisPage() {
  let headers = await kept(location.href);
  let asked = false;
  if (headers === null) {
    // A no-store page is not in the browser's cache either, and so every request for it fares alike: ask once more.
    // (Or the browser's cache is switched off; then this is the next request's answer, and is marked so.)
    headers = (await fetch(location.href, { cache: "no-store" })).headers;
    asked = true;
  }
  const value = headers.get("cache-status");
  if (value === null) {
    put($("edge-word"), ["wait", "NO EDGE", "No Cache-Status: this page did not come through the edge."]);
    return;
  }
  const answer = explain(parse(value), headers);
  if (asked && answer[0] !== "pass") answer[2] = `Your browser kept no copy to look at; it asked again, and now: ${answer[2]}`;
  put($("edge-word"), answer);
  const list = $("edge-fields");
  list.replaceChildren();
  for (const name of ["Cache-Status", "Age", "CDN-Cache-Control", "Cache-Control", "Surrogate-Key", "ETag", "Vary", "Date"]) {
    const field = headers.get(name);
    if (field !== null) row(list, name, field);
  }
}

async function itsParts() {
  const urls = new Set(
    performance.getEntriesByType("resource").map((entry) => entry.name)
      .filter((name) => name.startsWith(`${location.origin}/`) && !name.includes("/demo/") && name !== location.href),
  );
  const body = $("edge-parts").tBodies[0];
  body.replaceChildren();
  for (const url of [...urls].sort()) {
    const headers = await kept(url);
    const value = headers?.get("cache-status");
    const line = body.insertRow();
    line.insertCell().textContent = new URL(url).pathname;
    const cell = line.insertCell();
    if (!value) {
      cell.textContent = "not kept by the browser";
      continue;
    }
    const [kind, title] = explain(parse(value), headers);
    cell.className = kind;
    cell.textContent = title === "HIT" ? `HIT, ${headers.get("age") ?? 0} s old` : title;
  }
}

function showFeed(event) {
  const state = JSON.parse(event.data);
  $("tally-edge").textContent = state.edge ?? "–";
  $("tally-origin").textContent = state.origin;
  $("edge-log").replaceChildren(
    ...state.log.map((entry) => {
      const li = document.createElement("li");
      const time = document.createElement("time");
      const what = document.createElement("span");
      time.textContent = entry.at;
      what.textContent = entry.what;
      what.className = entry.kind;
      li.append(time, what);
      return li;
    }),
  );
}

let feed = null;
function follow() {
  if (document.hidden) {
    feed?.close();
    feed = null;
  } else if (feed === null) {
    feed = new EventSource("/demo/feed");
    feed.onmessage = showFeed;
  }
}

async function start() {
  $("edge-text").textContent = "";
  await thisPage();
  document.documentElement.dataset.edge = $("edge-word").textContent;
  follow();
  await itsParts();
}

document.addEventListener("visibilitychange", follow);
addEventListener("pagehide", () => { feed?.close(); feed = null; });
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  put($("edge-word"), ["wait", "BACK", "Your browser had kept the whole page and asked nobody."]);
  follow();
});
if (document.readyState === "complete") start();
else addEventListener("load", start);
