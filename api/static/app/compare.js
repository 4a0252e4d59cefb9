// Plays two to six videos as one: the first leads, the others stand where it stands, by time.

const DRIFT_S = 0.06; // more than this is corrected while they play
const SETTLED_S = 0.02; // until no more than this is left
const JUMP_S = 0.5; // beyond which another pace would take too long
const WIPE_STEP = 5;

const $ = (id) => document.getElementById(id);
const stage = $("stage");
const players = [...stage.querySelectorAll("video")].map((video) => ({
  video,
  figure: video.closest("figure"),
  shown: video.closest("figure").querySelector("output"),
  fps: Number(video.dataset.fps),
  frames: Number(video.dataset.frames),
}));
const leader = players[0];
let at = 0; // the leader's frame, from 0
let rate = 1;

// The middle of a frame: a time at its edge would show one or the other.
const middle = (one, frame) => (frame + 0.5) / one.fps;
const playing = () => !leader.video.paused;
const between = (least, value, most) => Math.min(most, Math.max(least, value));

// Frames

function seek(frame) {
  at = between(0, frame, leader.frames - 1);
  for (const one of players) {
    const own = Math.floor(middle(leader, at) * one.fps);
    one.video.pause();
    one.video.currentTime = middle(one, Math.min(own, one.frames - 1));
  }
  tellWhere();
}

// Which picture stands there is what the browser says of the very frame, where it says so.
function watch(one) {
  const { video } = one;
  if (video.requestVideoFrameCallback) {
    const look = (_, { mediaTime }) => {
      see(one, Math.round(mediaTime * one.fps));
      video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
  } else {
    const look = () => see(one, Math.floor(video.currentTime * one.fps));
    for (const type of ["seeked", "timeupdate"]) video.addEventListener(type, look);
  }
}

function see(one, frame) {
  one.shown.value = Math.min(frame, one.frames - 1) + 1;
  if (one !== leader || !playing()) return;
  at = Math.min(frame, one.frames - 1);
  tellWhere();
  followers().forEach(follow);
}

function tellWhere() {
  $("frame").value = at + 1;
  $("frame").setAttribute("aria-valuetext", `frame ${at + 1} of ${leader.frames}`);
  $("where").value = `frame ${at + 1}/${leader.frames} · ${(at / leader.fps).toFixed(2)} s`;
}

// Playing

function followers() {
  return players.slice(1).filter((one) => !one.figure.hidden);
}

function start(video) {
  video.play().catch(() => {}); // paused meanwhile, or an error that has its own event
}

function play() {
  if (at === leader.frames - 1) seek(0);
  start(leader.video);
  followers().forEach(follow);
}

function pause() {
  seek(at);
}

// Keeps a player with the leader: by its pace when it is near, by a seek when it is far.
function follow(one) {
  const { video } = one;
  const now = leader.video.currentTime;
  if (now > middle(one, one.frames - 1)) return video.pause(); // shorter: its last picture stays
  if (video.seeking) return;
  const drift = video.currentTime - now;
  const least = video.playbackRate === rate ? DRIFT_S : SETTLED_S;
  const pace = Math.abs(drift) > least ? between(0.5, 1 - 2 * drift, 1.5) : 1;
  video.playbackRate = rate * pace;
  if (Math.abs(drift) > (video.paused ? DRIFT_S : JUMP_S)) video.currentTime = now;
  if (video.paused) start(video);
}

function ended() {
  if (!$("loop").checked) return seek(leader.frames - 1);
  seek(0);
  play();
}

function jump(seconds) {
  const goesOn = playing();
  seek(at + Math.round(seconds * leader.fps));
  if (goesOn) play();
}

// Ways to look at them

function arrange() {
  const way = document.querySelector("[name=way]:checked").value;
  const second = players[Number($("other")?.value ?? 1)];
  const [one, other] = [leader, second].map(sizeOf);
  const unlike = way === "difference" && one !== other;
  tell(unlike && `Difference needs two videos of one size: A is ${one}, ${second.video.dataset.letter} is ${other}. They are shown side by side.`);
  stage.classList.remove("grid", "wipe", "difference");
  stage.classList.add(unlike ? "grid" : way);
  stage.style.setProperty("--shape", leader.video.width / leader.video.height);
  for (const one of players) {
    one.figure.hidden = way !== "grid" && one !== leader && one !== second;
    one.video.classList.toggle("over", one === second);
    if (one.figure.hidden) one.video.pause();
  }
  $("wipe-field").hidden = $("divider").hidden = way !== "wipe";
  $("other-field")?.toggleAttribute("hidden", way === "grid");
  cut();
}

function sizeOf({ video }) {
  return `${video.width}×${video.height}`;
}

// Left of the cut the leader is seen, right of it the other one.
function cut() {
  const place = stage.classList.contains("wipe") ? `${$("wipe").value}%` : "";
  for (const { video } of players) {
    video.style.clipPath = place && video.matches(".over") ? `inset(0 0 0 ${place})` : "";
  }
  $("divider").style.left = place;
}

function wipe(percent) {
  $("wipe").value = percent;
  cut();
}

function drag(event) {
  if (!stage.classList.contains("wipe") || event.target.closest("figcaption")) return;
  stage.setPointerCapture(event.pointerId);
  const box = leader.video.getBoundingClientRect();
  wipe((100 * (event.clientX - box.left)) / box.width);
}

function tell(words) {
  $("told").textContent = words || "";
  $("told").hidden = !words;
}

// Keys: a control that has the focus keeps those that it knows itself

const KEYS = {
  " ": () => $("play").click(),
  ",": () => seek(at - 1),
  ".": () => seek(at + 1),
  ArrowLeft: () => jump(-1),
  ArrowRight: () => jump(1),
  "[": () => wipe(Number($("wipe").value) - WIPE_STEP),
  "]": () => wipe(Number($("wipe").value) + WIPE_STEP),
};

function press(event) {
  const { key, target } = event;
  if (!KEYS[key] || !$("keys-on").checked || event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.closest("dialog[open]")) return;
  if (key === " " && target.closest("input, select, button, summary")) return;
  if (key.startsWith("Arrow") && target.closest("input, select")) return;
  event.preventDefault();
  KEYS[key]();
}

for (const one of players) {
  one.video.controls = false;
  one.shown.parentElement.hidden = false;
  one.video.addEventListener("error", () => {
    tell(`${one.video.dataset.letter} cannot be played. Its file may be gone. Open its job to see.`);
  });
  watch(one);
}
for (const type of ["play", "pause"]) {
  leader.video.addEventListener(type, () => { $("play").textContent = playing() ? "Pause" : "Play"; });
}
leader.video.addEventListener("ended", ended);
$("play").addEventListener("click", () => (playing() ? pause() : play()));
$("first").addEventListener("click", () => seek(0));
$("back").addEventListener("click", () => seek(at - 1));
$("on").addEventListener("click", () => seek(at + 1));
$("last").addEventListener("click", () => seek(leader.frames - 1));
$("frame").addEventListener("input", () => seek($("frame").value - 1));
$("rate").addEventListener("change", () => { rate = leader.video.playbackRate = Number($("rate").value); });
$("wipe").addEventListener("input", cut);
$("ways").addEventListener("change", arrange);
stage.addEventListener("pointerdown", drag);
stage.addEventListener("pointermove", (event) => event.buttons & 1 && drag(event));
document.addEventListener("keydown", press);
$("ways").hidden = $("transport").hidden = false;
arrange();
seek(0);
