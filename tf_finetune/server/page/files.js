// Files: uploads, and the list.

import { listed, upload } from "./api.js";
import { bytes, date, el, fill, find, number, say } from "./dom.js";
import { report } from "./report.js";

let shown = "";
let stopping = null;
let chosen = null;

async function take(list) {
  for (const file of list) {
    if (!(await send(file))) break;
  }
}

// Uploads a file and shows its report; returns whether it is there.
async function send(file) {
  stopping?.abort();
  const own = (stopping = new AbortController());
  const progress = find("upload-progress");
  find("upload").hidden = false;
  find("upload-name").textContent = file.name;
  progress.value = 0;
  say(find("upload-said"), `Uploading ${file.name}.`);
  try {
    const made = await upload(file, (share) => (progress.value = share), own.signal);
    say(find("upload-said"), `Uploaded ${made.filename}: ${number(made.rows)} lines.`);
    location.hash = `#/files/${made.id}`;
    return true;
  } catch (error) {
    say(find("upload-said"), error.name === "AbortError" ? "The upload was stopped." : error.message);
    return false;
  } finally {
    find("upload").hidden = true;
    await files.refresh();
  }
}

function item(file) {
  return el("li", {},
    el("a", { class: "card", href: `#/files/${file.id}`, "data-key": file.id,
      "aria-current": file.id === chosen && "true" },
    el("strong", { class: "name" }, file.filename),
    el("span", { class: "hint" }, `${number(file.rows)} lines · ${bytes(file.bytes)} · ${date(file.created_at)}`)));
}

export const trainingFiles = () => listed("/files?purpose=fine-tune");

export const files = {
  open(id) {
    chosen = id;
    shown = "";
    find("files").classList.toggle("has-detail", id !== null);
    report.open(id);
  },
  async refresh() {
    const found = await trainingFiles();
    const now = JSON.stringify([found, chosen]);
    if (now !== shown) {
      shown = now;
      fill(find("file-list"), found.length ? found.map(item)
        : el("li", { class: "hint" }, "None yet."));
    }
    await report.refresh(found.find((file) => file.id === chosen));
  },
};

find("file").addEventListener("change", async (event) => {
  await take([...event.target.files]);
  event.target.value = "";
});
find("upload-stop").addEventListener("click", () => stopping.abort());

// A file that misses the place is not opened in place of the page.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());

const drop = find("drop");
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") take([...event.dataTransfer.files]);
  });
}
