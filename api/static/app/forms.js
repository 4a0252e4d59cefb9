// Makes forms friendlier: a question before a job is stopped, one job per double click, copying.

const IMAGE = "input[type=file][name=input_reference]";

// All of it listens on the document, because forms come and go with fragments.
export function startForms() {
  document.addEventListener("submit", (event) => send(event, event.target));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.matches("[data-close]")) button.closest("dialog").close();
    if (button?.matches("[data-copy]")) copy(button);
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches(IMAGE)) preview(event.target);
    if (event.target.matches("#image_fit, #size")) crop();
  });
  document.addEventListener("input", (event) => event.target.id === "count" && countOut());
  document.addEventListener("dragover", (event) => imageField() && event.preventDefault());
  document.addEventListener("drop", (event) => take(event, event.dataTransfer.files));
  document.addEventListener("paste", (event) => take(event, event.clipboardData.files));
  document.body.addEventListener("htmx:afterSwap", adapt);
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[aria-busy]")) form.removeAttribute("aria-busy");
  });
  adapt();
}

// Shows what only a script can do, and hides what stands in for it.
function adapt() {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
  for (const button of document.querySelectorAll("[data-without-script]")) {
    button.hidden = button.disabled = true;
  }
  countOut();
  crop();
}

// Says on the buttons how many videos they make.
function countOut() {
  const count = Number(document.getElementById("count")?.value);
  for (const button of document.querySelectorAll("[data-many]")) {
    button.dataset.one ??= button.textContent;
    button.textContent = count > 1 ? button.dataset.many.replace("#", count) : button.dataset.one;
  }
}

function send(event, form) {
  if (form.method !== "post") return;
  const dialog = document.getElementById(form.dataset.dialog ?? "");
  if (dialog) {
    event.preventDefault();
    dialog.showModal();
  } else if (form.getAttribute("aria-busy") === "true") {
    event.preventDefault(); // the server would answer the second one with the same job
  } else {
    form.setAttribute("aria-busy", "true");
  }
}

// Plain HTTP on a host name has no clipboard API: then a hidden field and the old command.
async function copy(button) {
  const text = document.querySelector(button.dataset.copy).textContent;
  const done = (await byClipboard(text)) || byField(text);
  const word = button.textContent;
  button.textContent = done ? "Copied" : "Select the text below and press Ctrl+C";
  setTimeout(() => { button.textContent = word; }, 2000);
}

async function byClipboard(text) {
  if (!navigator.clipboard) return false;
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // not allowed here
  }
}

function byField(text) {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen";
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

function imageField() {
  return document.querySelector(IMAGE);
}

// An image that is dropped or pasted anywhere on the page goes into the form's field.
function take(event, files) {
  const field = imageField();
  const image = [...files].find((one) => one.type.startsWith("image/"));
  if (!field || !image) return;
  event.preventDefault();
  const list = new DataTransfer();
  list.items.add(image);
  field.files = list.files;
  preview(field);
}

function preview(field) {
  const picture = document.getElementById("preview");
  const file = field.files[0];
  if (picture.src.startsWith("blob:")) URL.revokeObjectURL(picture.src);
  picture.hidden = !file;
  if (file) picture.src = URL.createObjectURL(file);
  crop();
}

const FITS = {contain: ["contain", "padded"], stretch: ["fill", "stretched"]};

// Shows the image as the model will see it: at the video's shape, cut, padded or stretched.
function crop() {
  const picture = document.getElementById("preview");
  if (!picture) return;
  const size = document.getElementById("size");
  const shape = /^(\d+)x(\d+)$/.exec(size.value.trim() || size.placeholder);
  const [fit, word] = FITS[document.getElementById("image_fit").value] ?? ["cover", "cut"];
  picture.style.aspectRatio = shape ? `${shape[1]} / ${shape[2]}` : "";
  picture.style.objectFit = fit;
  const seen = document.getElementById("seen");
  seen.hidden = picture.hidden;
  seen.textContent = shape ? `What the model sees: ${word} to ${shape[0]}.`
    : "The video takes the shape of the image.";
}
