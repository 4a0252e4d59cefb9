// Single-key shortcuts: never inside fields, all of them reachable by Tab as well.

const STORED = "wf.keys";
const GO = { o: "/", j: "/jobs", g: "/groups", n: "/new", a: "/admin" };
const FIELDS = "input:not([type=checkbox], [type=radio]), select, textarea, dialog[open], video";
let leader = 0; // when `g` was pressed

export function startKeys() {
  const help = document.getElementById("keys-help");
  if (!help) return;
  const box = document.getElementById("keys-on");
  box.checked = localStorage.getItem(STORED) !== "off";
  box.addEventListener("change", () => localStorage.setItem(STORED, box.checked ? "on" : "off"));
  document.addEventListener("keydown", (event) => {
    if (!box.checked || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest(FIELDS)) return;
    if (press(event.key, help)) event.preventDefault();
  });
}

function press(key, help) {
  if (Date.now() - leader < 1000 && GO[key]) {
    leader = 0;
    location.assign(GO[key]);
    return true;
  }
  const action = ACTIONS[key];
  return action ? action(help) !== false : false;
}

const ACTIONS = {
  "?": (help) => help.showModal(),
  "/": () => focus("#search") || location.assign("/jobs"),
  g: () => { leader = Date.now(); },
  n: () => location.assign("/new"),
  j: () => step(1),
  k: () => step(-1),
  e: () => click("#edit"),
  p: () => click("#promote"),
  x: tick,
  c: () => click("#compare"),
  y: () => click('[data-copy="#curl-text"]'),
};

function focus(selector) {
  const found = document.querySelector(selector);
  found?.focus();
  return Boolean(found);
}

function click(selector) {
  const found = document.querySelector(selector);
  found?.click();
  return Boolean(found);
}

// Ticks the row in which the focus is.
function tick() {
  const box = document.activeElement.closest("tr")?.querySelector("input[type=checkbox]");
  box?.click();
  return Boolean(box);
}

function step(by) {
  const links = [...document.querySelectorAll("a.prompt")];
  if (links.length === 0) return false;
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? 0 : Math.min(links.length - 1, Math.max(0, at + by));
  links[next].focus();
  return true;
}
