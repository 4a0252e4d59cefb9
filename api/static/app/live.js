// Keeps pages fresh: one tick for the fragments that poll, one event stream on a job's page.

const STORED = "wf.live";
const WORDS = { live: "Live", polling: "Polling", paused: "Paused" };
const TICKS = ".tick input, .all input";
const RETRY_STREAM_MS = 30000;
const LEAST_GAP_MS = 400; // a fast model steps more often than anybody can read

const state = { everyMs: 3000, timer: 0, stream: null, streamBroken: false, retry: 0, asked: 0, again: 0 };

export function startLive() {
  const menu = document.getElementById("live");
  if (!menu) return;
  const stored = Number(localStorage.getItem(STORED) ?? "3000");
  state.everyMs = [1000, 3000, 10000, 0].includes(stored) ? stored : 3000;
  for (const choice of menu.querySelectorAll("input")) {
    choice.checked = Number(choice.value) === state.everyMs;
    choice.addEventListener("change", () => choose(Number(choice.value)));
  }
  document.addEventListener("change", (event) => {
    if (!event.target.matches(TICKS)) return;
    rest();
    resume();
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : wake()));
  document.addEventListener("click", (event) => {
    if (menu.open && !menu.contains(event.target)) menu.open = false;
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
  addEventListener("pagehide", rest);
  addEventListener("pageshow", (event) => event.persisted && wake());
  followSwaps();
  if (!document.hidden) resume();
}

function choose(everyMs) {
  state.everyMs = everyMs;
  localStorage.setItem(STORED, String(everyMs));
  rest();
  wake();
}

// What polls, or nothing: a finished job's fragment has no trigger any more.
function moving() {
  return document.querySelector('main [hx-trigger="wf:tick from:body"]');
}

// Rows stand still while some are ticked.
function ticked() {
  return document.querySelector(`:is(${TICKS}):checked`) !== null;
}

function resume() {
  clearTimeout(state.timer);
  document.getElementById("live").hidden = !moving();
  if (!moving() || state.everyMs === 0 || ticked()) return say("paused");
  openStream();
  state.timer = setTimeout(onTime, state.everyMs);
  say(streaming() ? "live" : "polling");
}

function rest() {
  clearTimeout(state.timer);
  clearTimeout(state.retry);
  clearTimeout(state.again);
  state.again = 0;
  closeStream();
}

function wake() {
  if (state.everyMs !== 0) refresh();
  resume();
}

function onTime() {
  // An open stream tells by itself when to look; only the age of what stands there is renewed.
  if (!streaming() || Date.now() - state.asked > 10000) refresh();
  resume();
}

function refresh() {
  state.asked = Date.now();
  document.body.dispatchEvent(new Event("wf:tick"));
}

// Many events in a short time cost one look, and the last one is never missed.
function refreshSoon() {
  if (state.again) return;
  const wait = Math.max(0, state.asked + LEAST_GAP_MS - Date.now());
  state.again = setTimeout(() => {
    state.again = 0;
    refresh();
  }, wait);
}

function streaming() {
  return state.stream !== null && state.stream.readyState === EventSource.OPEN;
}

function openStream() {
  const url = document.querySelector("[data-stream]")?.dataset.stream;
  if (!url || state.stream || state.streamBroken) return;
  const stream = new EventSource(url);
  state.stream = stream;
  stream.addEventListener("open", () => say("live"));
  for (const type of ["snapshot", "state", "attempt", "phase", "step", "warning", "cancel"]) {
    stream.addEventListener(type, refreshSoon);
  }
  stream.addEventListener("end", () => {
    closeStream();
    refresh();
  });
  stream.addEventListener("error", () => {
    if (stream.readyState === EventSource.CLOSED) refused();
    else say("polling");
  });
}

function closeStream() {
  state.stream?.close();
  state.stream = null;
}

// The browser gives up for good on a refusal: poll, and try again after a while.
function refused() {
  closeStream();
  state.streamBroken = true;
  say("polling");
  state.retry = setTimeout(() => {
    state.streamBroken = false;
    openStream();
  }, RETRY_STREAM_MS * (0.8 + 0.4 * Math.random()));
}

function followSwaps() {
  const body = document.body;
  let before = {};
  body.addEventListener("htmx:beforeSwap", (event) => {
    const target = event.detail.target;
    const same = target.dataset.received === fingerprint(event.detail.xhr.responseText);
    const held = ticked() || document.querySelector("dialog[open], .shot video");
    if (same || held) event.detail.shouldSwap = false;
    before = {
      state: target.dataset.state,
      open: [...target.querySelectorAll("details[open][id]")].map((one) => one.id),
      text: fingerprint(event.detail.xhr.responseText),
    };
  });
  body.addEventListener("htmx:afterSwap", (event) => {
    const fresh = document.getElementById(event.detail.target.id) ?? event.detail.elt;
    fresh.dataset.received = before.text;
    for (const id of before.open ?? []) document.getElementById(id)?.setAttribute("open", "");
    if (before.state && fresh.dataset.state !== before.state) changed(fresh);
  });
  body.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.xhr.status === 401) location.reload();
    if (event.detail.successful && !document.hidden) resume();
  });
  body.addEventListener("htmx:sendError", () => offline());
}

// A state is news: spoken, in the title, and the buttons of a running job go.
function changed(job) {
  document.getElementById("announce").textContent = `Now ${job.dataset.state.replace("_", " ")}`;
  if (!job.dataset.title) return;
  document.title = job.dataset.title;
  if (!job.dataset.stream) {
    for (const one of document.querySelectorAll("[data-live-only]")) one.remove();
    closeStream();
  }
}

function offline() {
  if (document.querySelector(".shell").dataset.live === "offline") return;
  const now = new Date().toTimeString().slice(0, 5);
  mark("offline", `Offline since ${now}`);
}

function say(what) {
  mark(what, WORDS[what]);
}

function mark(what, words) {
  const shell = document.querySelector(".shell");
  if (shell.dataset.live === what) return;
  shell.dataset.live = what;
  document.getElementById("live-word").textContent = words;
}

// Short enough for an attribute; two answers that differ must only rarely look alike.
function fingerprint(text) {
  let hash = 5381;
  for (let i = 0; i < text.length; i += 1) hash = (hash * 33 + text.charCodeAt(i)) | 0;
  return `${text.length}.${hash}`;
}
