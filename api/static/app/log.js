// A video's log: read when it is opened, and again at every tick while somebody follows it.

export function startLog() {
  const fold = document.getElementById("log");
  if (!fold) return;
  const follow = fold.querySelector("#follow");
  const text = fold.querySelector("pre");
  fold.querySelector(".follow").hidden = text.hidden = false;
  fold.addEventListener("toggle", () => fold.open && read(fold, text, follow));
  follow.addEventListener("change", () => follow.checked && read(fold, text, follow));
  document.body.addEventListener("wf:tick", () => fold.open && follow.checked && read(fold, text, follow));
}

async function read(fold, text, follow) {
  try {
    const answer = await fetch(fold.dataset.log);
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(`The farm answered ${answer.status}.`);
    text.textContent = await answer.text();
    if (follow.checked) text.scrollTop = text.scrollHeight;
  } catch (err) {
    text.textContent = `The log could not be read. ${err.message} Close it and open it again.`;
  }
}
