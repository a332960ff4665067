// The list of models: base ones and tuned ones.

import { get, remove } from "./api.js";
import { confirmed, date, el, fill, find, say } from "./dom.js";

let shown = "";

// Returns the models, tuned ones newest first, base ones behind them.
export async function allModels() {
  const { data } = await get("/models");
  const tuned = data.filter(isTuned).reverse();
  return { base: data.filter((model) => !isTuned(model)), tuned, all: [...tuned, ...data.filter((m) => !isTuned(m))] };
}

export const isTuned = (model) => model.id.startsWith("ft:");

async function forget(model) {
  const text = `${model.id} and its checkpoints are removed from the disk.`;
  if (!(await confirmed("Delete this model?", text, "Delete"))) return;
  try {
    await remove(`/models/${encodeURIComponent(model.id)}`);
    say(find("models-said"), `Deleted: ${model.id}.`);
    await models.refresh();
  } catch (error) {
    say(find("models-said"), error.message);
  }
}

function item(model) {
  const name = encodeURIComponent(model.id);
  return el("li", { class: "card row spread" },
    el("div", { class: "grow" },
      el("strong", { class: "name" }, model.id),
      el("p", { class: "hint" }, isTuned(model) ? `tuned, ${date(model.created)}` : "base")),
    el("div", { class: "row" },
      el("a", { class: "button", href: `#/playground?model=${name}`, "data-key": `chat ${model.id}` }, "Chat"),
      el("a", { class: "button", href: `#/jobs/new?model=${name}`, "data-key": `tune ${model.id}` },
        isTuned(model) ? "Train further" : "Fine-tune"),
      isTuned(model) && el("button", { class: "danger quiet", type: "button", "data-key": `delete ${model.id}`,
        "aria-label": `Delete ${model.id}`, click: () => forget(model) }, "Delete") || null));
}

function group(title, found, empty) {
  return [
    el("h2", {}, title),
    found.length ? el("ul", { class: "items" }, found.map(item)) : el("p", { class: "hint" }, empty),
  ];
}

export const models = {
  open() {
    say(find("models-said"), "");
  },
  async refresh() {
    const { base, tuned } = await allModels();
    const now = JSON.stringify([base, tuned]);
    if (now === shown) return;
    shown = now;
    fill(find("model-list"),
      group("Tuned", tuned, "None yet: a job that succeeds makes one."),
      group("Base", base, "None: start the server with --models=name=handle."));
  },
};
