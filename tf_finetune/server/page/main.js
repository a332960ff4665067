// The page: shows the part that the address names, and keeps it up to date.

import { ApiError } from "./api.js";
import { find, say } from "./dom.js";
import { files } from "./files.js";
import { jobs } from "./jobs.js";
import { askKey } from "./key.js";
import { models } from "./models.js";
import { playground } from "./playground.js";

const PARTS = { files, jobs, models, playground };
const PAUSE = 3000;
let part = null;
let timer = null;

// An address is #/part/id?name=value.
function read() {
  const [path, query] = location.hash.slice(2).split("?");
  const [name, id] = path.split("/");
  return { name: Object.hasOwn(PARTS, name) ? name : "files", id: id || null, query: new URLSearchParams(query) };
}

async function show() {
  const { name, id, query } = read();
  part = PARTS[name];
  for (const other of Object.keys(PARTS)) find(other).hidden = other !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${name[0].toUpperCase()}${name.slice(1)} · tf_finetune`;
  part.open(id, query);
  await refresh();
}

// Asks for what is new, and again after a pause; a tab in the background waits.
async function refresh() {
  clearTimeout(timer);
  const own = part;
  try {
    if (!document.hidden) await own.refresh();
    find("connection").hidden = true;
  } catch (error) {
    if (!(error instanceof ApiError)) console.error(error);
    find("connection").hidden = false;
    say(find("connection"), error.status ? error.message : `${error.message} Trying again.`);
    // Without a key nothing is asked for, until one is given.
    if (error.status === 401) return;
  }
  if (own === part) {
    clearTimeout(timer);
    timer = setTimeout(refresh, own.pause ?? PAUSE);
  }
}

addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
find("skip").addEventListener("click", (event) => {
  event.preventDefault();
  find("main").focus();
});
find("change-key").addEventListener("click", async () => (await askKey()) && refresh());
show();
