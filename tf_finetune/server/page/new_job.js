// The form that creates a job.

import { post } from "./api.js";
import { date, find, options, say } from "./dom.js";
import { trainingFiles } from "./files.js";
import { allModels } from "./models.js";

const form = find("new-job");
let wanted = new URLSearchParams();

const value = (name) => form.elements[name].value.trim();
const asNumber = (name) => (value(name) === "" ? undefined : Number(value(name)));

function showBeta() {
  find("beta-field").hidden = value("method") !== "dpo";
}

// Returns the request; what is left out is chosen by the server.
function request() {
  const type = value("method");
  const names = ["n_epochs", "batch_size", "learning_rate_multiplier", ...(type === "dpo" ? ["beta"] : [])];
  const given = names.map((name) => [name, asNumber(name)]).filter(([, number]) => number !== undefined);
  return {
    model: value("model"),
    training_file: value("training_file"),
    validation_file: value("validation_file") || undefined,
    suffix: value("suffix") || undefined,
    seed: asNumber("seed"),
    method: { type, [type]: { hyperparameters: Object.fromEntries(given) } },
  };
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  say(find("new-job-said"), "");
  try {
    const made = await post("/fine_tuning/jobs", request());
    location.hash = `#/jobs/${made.id}`;
  } catch (error) {
    say(find("new-job-said"), error.message);
  } finally {
    button.disabled = false;
  }
});
find("job-method").addEventListener("change", showBeta);

export const newJob = {
  open(isOpen, query) {
    form.hidden = !isOpen;
    if (!isOpen) return;
    say(find("new-job-said"), "");
    wanted = query;
    if (query.has("method")) find("job-method").value = query.get("method");
    showBeta();
  },
  async refresh() {
    const [files, models] = await Promise.all([trainingFiles(), allModels()]);
    const named = files.map((file) => [file.id, `${file.filename} (${date(file.created_at)})`]);
    options(find("job-file"), named, wanted.get("file") ?? undefined);
    options(find("job-validation"), [["", "none"], ...named]);
    options(find("job-model"), [...models.base, ...models.tuned].map((model) => model.id), wanted.get("model") ?? undefined);
    wanted = new URLSearchParams();
    if (!files.length) say(find("new-job-said"), "There is no file yet: upload one first.");
  },
};
