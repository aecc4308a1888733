// The console's script. Pages are right without it; it adds what changes while they are open.
//
// - One stream of events for all tabs: this file is also the shared worker that holds it.
// - An element with an id and data-live="KIND KIND" is fetched anew when such an event comes: from the page's own
//   address, never from an event's data. data-site and data-correlation narrow which events count.
// - Every event is also dispatched on the document as "deploykit:event", for scripts of single pages.
// - Text from elsewhere comes into the page only as the server escaped it, or as textContent.

const inPage = typeof document !== "undefined";
const KINDS = ["push", "build", "mirror", "deploy", "step", "log", "node", "lock", "access", "presence", "notice", "health", "reset"];
const RETRY = 15_000; // after an answer that EventSource takes for final, as 401 or 503
const RECENT = 500; // events kept for tabs that are opened beside others
const CALM = 5_000; // a stream that is back before nobody hears of: the server ends each after some minutes

// -- the stream ----------------------------------------------------------------------------------------------------

/** Listen to the events below `base` that follow number `at`; `tell` gets {state} and {kind, data, at}. Returns its end. */
function listen(base, at, tell) {
  let source, timer;
  const open = () => {
    source = new EventSource(`${base}/api/v1/events?after=${at}`);
    source.onopen = () => tell({ state: "live" });
    source.onerror = () => {
      const closed = source.readyState === EventSource.CLOSED;
      tell({ state: closed ? "closed" : "lost" });
      if (closed) timer = setTimeout(open, RETRY); // else the browser comes back by itself, and gets what it missed
    };
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => {
        at = Number(event.lastEventId);
        try {
          tell({ kind, at, data: JSON.parse(event.data) });
        } catch {
          tell({ kind: "reset", at, data: {} });
        }
      });
    }
  };
  open();
  return () => { clearTimeout(timer); source.close(); };
}

/** Serve every tab from one stream, which is open while there is a tab; a tab says which event its page shows. */
function serveTabs() {
  const tabs = new Set();
  let end = null, state = null, recent = [], since = 0;
  const tell = (message) => {
    if (message.state) state = message.state;
    else if (recent.push(message) > RECENT) since = recent.shift().at;
    for (const tab of tabs) tab.postMessage(message);
  };
  self.onconnect = ({ ports: [tab] }) => {
    tab.onmessage = ({ data: shown }) => {
      if (shown === "bye") {
        tabs.delete(tab);
        if (!tabs.size && end) { end(); end = state = null; recent = []; }
        return;
      }
      tabs.add(tab);
      if (!end) end = listen(self.name, since = shown, tell);
      else if (state) tab.postMessage({ state });
      const missed = shown < since ? [{ kind: "reset", data: {} }] : recent.filter(({ at }) => at > shown);
      for (const message of missed) tab.postMessage(message);
    };
  };
}

/** Get the events that follow number `shown` into this page, through the shared worker where there is one. */
function subscribe(base, shown, tell) {
  const take = (message) => { shown = Math.max(shown, message.at ?? 0); tell(message); };
  if (typeof SharedWorker === "undefined") {
    let end = listen(base, shown, take);
    addEventListener("pagehide", () => { end?.(); end = null; });
    addEventListener("pageshow", () => { end ??= listen(base, shown, take); });
    return;
  }
  const { port } = new SharedWorker(import.meta.url, { type: "module", name: base });
  port.onmessage = ({ data }) => take(data);
  port.postMessage(shown);
  addEventListener("pagehide", () => port.postMessage("bye"));
  addEventListener("pageshow", ({ persisted }) => { if (persisted) port.postMessage(shown); });
}

// -- times ---------------------------------------------------------------------------------------------------------

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
let skew = 0; // how far this machine's clock is behind the server's, in milliseconds

function ago(date) {
  const seconds = Math.round((Date.now() + skew - date) / 1000), size = Math.abs(seconds);
  if (size < 2) return "now";
  if (size > 14 * 86400) return date.toLocaleDateString(undefined, { dateStyle: "medium" });
  const [unit, name] = UNITS.find(([unit]) => size >= unit);
  const words = `${Math.floor(size / unit)}\u00a0${name}`;
  return seconds < 0 ? `in ${words}` : `${words} ago`;
}

/** Write times for the viewer: how long ago, or whole, in their zone with UTC beside. */
function writeTimes(root, all = true) {
  for (const time of root.querySelectorAll(all ? "time" : "time:not([data-full])")) {
    const date = new Date(time.dateTime);
    if (isNaN(date)) continue;
    if (all) {
      const utc = `${date.toISOString().slice(0, 19).replace("T", " ")} UTC`;
      const local = date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
      const whole = date.getTimezoneOffset() ? `${local} (${utc})` : utc;
      time.title = whole;
      if ("full" in time.dataset) time.textContent = whole;
    }
    if (!("full" in time.dataset)) {
      const words = ago(date);
      if (time.textContent !== words) time.textContent = words;
    }
  }
}

// -- what changes --------------------------------------------------------------------------------------------------

const written = new Map(); // id of a live element -> its HTML as the server wrote it
let waiting = 0, fetching = false, again = false, stale = false, took = 100;

const live = () => document.querySelectorAll("[data-live][id]");

function remember() {
  for (const part of live()) written.set(part.id, part.innerHTML);
}

function concerns(part, kind, data) {
  const { live, site, correlation } = part.dataset;
  if (kind === "reset") return true;
  if (!live.split(" ").includes(kind)) return false;
  if (site && data.site && data.site !== site) return false;
  return !(correlation && data.correlation && data.correlation !== correlation);
}

function heard({ state, kind, data }) {
  if (state) return showStream(state);
  document.dispatchEvent(new CustomEvent("deploykit:event", { detail: { kind, data } }));
  if ([...live()].some((part) => concerns(part, kind, data))) refreshSoon();
}

/** Fetch the page again, soon: often enough to be live, seldom enough that a slow server is not asked all the time. */
function refreshSoon() {
  if (document.hidden) stale = true;
  else if (fetching) again = true; // what is being fetched may have been written before
  else waiting ||= setTimeout(refresh, Math.max(700, 10 * took) + Math.random() * 300);
}

async function refresh() {
  let began = performance.now(), failed = true;
  [waiting, fetching, again] = [0, true, false];
  try {
    const address = new URL(document.documentElement.dataset.refresh ?? location.href, location);
    const answer = await fetch(address, { headers: { Accept: "text/html" }, credentials: "same-origin" });
    failed = answer.status >= 500;
    const there = answer.redirected ? new URL(answer.url).pathname : address.pathname; // what waited may have begun
    if (there !== address.pathname) return there.endsWith("/login") ? showStream("ended") : location.replace(answer.url);
    if (answer.ok) takeOver(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {} // the network is away: the stream's own state shows it
  took = performance.now() - began;
  fetching = false;
  if (again) refreshSoon(); else if (failed) setTimeout(refreshSoon, CALM);
}

const keyOf = (row) => row.querySelector("a")?.getAttribute("href");
const rowTexts = (part) => new Map([...part.querySelectorAll("[data-row]")].map((row) => [keyOf(row), row.textContent]));

/** Put what has changed into the page; keep focus, the marked row, and how far tables are scrolled. */
function takeOver(next) {
  for (const part of live()) {
    const found = next.getElementById(part.id);
    const focus = part.contains(document.activeElement) ? document.activeElement : null;
    if (found) part.className = found.className; // its tone
    if (!found || written.get(part.id) === found.innerHTML || focus?.matches("input, select, textarea")) continue;
    const before = new DOMParser().parseFromString(written.get(part.id) ?? "", "text/html");
    const texts = rowTexts(before), here = part.querySelector(".here"), marked = here && keyOf(here);
    const scrolled = [...part.querySelectorAll(".wide")].map((box) => box.scrollLeft);
    written.set(part.id, found.innerHTML);
    part.replaceChildren(...[...found.childNodes].map((node) => document.importNode(node, true)));
    for (const row of part.querySelectorAll("[data-row]")) {
      if (texts.get(keyOf(row)) !== row.textContent) row.classList.add("fresh");
      if (marked && keyOf(row) === marked) row.classList.add("here");
    }
    part.querySelectorAll(".wide").forEach((box, at) => { box.scrollLeft = scrolled[at] ?? 0; });
    writeTimes(part);
    const mark = focus?.id ? `#${CSS.escape(focus.id)}` : `a[href="${CSS.escape(focus?.getAttribute("href") ?? "")}"]`;
    if (focus) part.querySelector(mark)?.focus({ preventScroll: true });
  }
}

let slow = 0;
/** Show how the stream is: "live" at once, "lost" when it stays so; "closed" may mean that a login is needed. */
function showStream(state) {
  if (state === "lost") {
    slow ||= setTimeout(writeStream, CALM, state); // each further attempt that fails says "lost" again
  } else {
    slow = clearTimeout(slow);
    writeStream(state);
  }
  if (state === "closed") refreshSoon();
}

function writeStream(state) {
  const words = { live: "live", ended: "logged out: load the page again" };
  const sign = document.getElementById("stream");
  sign.hidden = false;
  sign.classList.toggle("lost", state !== "live");
  document.getElementById("stream-words").textContent = words[state] ?? "reconnecting …";
}

// -- keys ----------------------------------------------------------------------------------------------------------

function move(step) {
  const rows = [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent);
  const at = rows.findIndex((row) => row.classList.contains("here"));
  const to = rows[Math.min(Math.max(at + step, 0), rows.length - 1)];
  rows[at]?.classList.remove("here");
  if (!to) return;
  to.classList.add("here");
  to.scrollIntoView({ block: "nearest" });
  to.querySelector("a")?.focus({ preventScroll: true });
}

/** Follow the link, or go to the field, that a key stands for: in the marked row if it has one, else the page's. */
function follow(name) {
  const links = [document.querySelector(`.here [data-key=${name}]`), document.querySelector(`[data-key=${name}]`)];
  const link = links.find(Boolean);
  if (link?.matches("input")) link.focus();
  else link?.click();
}

const KEYS = {
  "/": () => document.querySelector("input[type=search]")?.select(),
  j: () => move(1),
  k: () => move(-1),
  d: () => follow("d"),
  l: () => follow("l"),
  n: () => follow("n"),
  Enter: (event) => event.target === document.body && document.querySelector(".here a")?.click(),
  "?": () => document.getElementById("help").showModal(),
};

function startKeys() {
  const box = document.getElementById("keys-on"), open = document.getElementById("help-open");
  box.checked = localStorage.getItem("keys") !== "off";
  box.addEventListener("change", () => localStorage.setItem("keys", box.checked ? "on" : "off"));
  open.hidden = false;
  open.addEventListener("click", KEYS["?"]);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.matches?.("input, select, textarea, dialog, dialog *")) {
      if (event.key === "Escape" && event.target.matches("[type=search]")) event.target.blur();
      return;
    }
    if (!box.checked || !Object.hasOwn(KEYS, event.key)) return;
    if (event.key !== "Enter") event.preventDefault();
    KEYS[event.key](event);
  });
}

// -- light and dark ------------------------------------------------------------------------------------------------

/** Keep the choice: for other tabs in localStorage, for the next page in a cookie, so that it never flashes. */
function startTheme(base) {
  const button = document.getElementById("theme"), root = document.documentElement;
  const show = (theme) => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    button.title = `Theme: ${theme || "as the system"}`;
  };
  const keep = (theme) => {
    localStorage.setItem("theme", theme);
    document.cookie = `theme=${theme}; path=${base || "/"}; max-age=${theme ? 31536000 : 0}; samesite=strict`;
    show(theme);
  };
  const kept = localStorage.getItem("theme") ?? "";
  if (kept !== (root.dataset.theme ?? "")) keep(kept);
  else show(kept);
  button.hidden = false;
  button.addEventListener("click", () => keep({ "": "dark", dark: "light", light: "" }[root.dataset.theme ?? ""]));
  addEventListener("storage", ({ key, newValue }) => { if (key === "theme") show(newValue ?? ""); });
}

function startPage() {
  const { base, now, event } = document.documentElement.dataset;
  if (now) skew = new Date(now) - Date.now();
  remember();
  writeTimes(document);
  setInterval(() => writeTimes(document, false), 10_000);
  startKeys();
  startTheme(base);
  if (!live().length || !("stream" in document.body.dataset)) return;
  subscribe(base, Number(event), heard);
  document.addEventListener("deploykit:refresh", refreshSoon);
  document.addEventListener("visibilitychange", () => { if (stale && !document.hidden) { stale = false; refreshSoon(); } });
}

if (inPage) startPage();
else serveTabs();
