// One job: its state, its curve, its checkpoints, and what can be done with it.

import { get, listed, post } from "./api.js";
import { lossChart } from "./chart.js";
import { confirmed, date, duration, el, facts, fill, find, loss, number, say } from "./dom.js";

const place = find("job");
const ACTIVE = ["validating_files", "queued", "running"];
const MOST_EVENTS = 200;
const SAMPLES = "Samples at "; // What an event with some answers begins with.
let wanted = null;
let view = null; // What is shown: its elements, and the events that are known, newest first.

const WORDS = { validating_files: "checking files" };

export function badge(status) {
  return el("span", { class: `badge ${status}` }, WORDS[status] ?? status);
}

export const nameOf = (one) => one.user_provided_suffix || one.id.replace("ftjob-", "").slice(0, 8);

const PAUSES = /^Fine-tuning job (paused|resumed|started|goes on|cancelled)/;
const isPaused = (job, events) => job.status === "queued"
  && PAUSES.exec(events.find((event) => PAUSES.test(event.message))?.message)?.[1] === "paused";

async function act(name) {
  const own = view;
  if (name === "cancel" && !(await confirmed("Cancel this job?", "Its training ends, and cannot go on. Pause it to go on later.", "Cancel the job"))) return;
  try {
    await post(`/fine_tuning/jobs/${own.id}/${name}`);
    say(own.said, "");
    await job.refresh();
  } catch (error) {
    say(own.said, error.message);
  }
}

function build(found) {
  const made = {
    id: found.id, events: [], shown: {},
    badge: el("span", { role: "status" }), actions: el("div", { class: "row" }), said: el("p", { class: "said bad", role: "alert" }),
    state: el("p"), progress: el("progress", { max: 1, value: 0, "aria-label": "Steps done" }),
    error: el("div", {}), latest: el("div", {}), chart: el("div", { class: "chart" }),
    samples: el("div", {}), facts: el("div", {}), checkpoints: el("div", {}), log: el("ol", { class: "log" }),
  };
  made.curve = lossChart(made.chart);
  fill(place,
    el("a", { class: "back", href: "#/jobs" }, "All jobs"),
    el("div", { class: "row spread" },
      el("h2", { class: "name grow" }, nameOf(found), " ", made.badge), made.actions),
    made.said, made.error, made.state, made.progress,
    el("section", { class: "card" }, el("h3", {}, "Loss"), made.latest, made.chart),
    made.samples, made.facts, made.checkpoints,
    el("details", { class: "events" }, el("summary", {}, "Events"), made.log));
  return made;
}

// Runs `change` where what an area shows is not what it showed.
function when(area, state, change) {
  const now = JSON.stringify(state);
  if (view.shown[area] === now) return;
  view.shown[area] = now;
  change();
}

const link = (href, text, key, look = "") => el("a", { class: `button ${look}`, href, "data-key": key }, text);

function actions(found, paused) {
  const button = (name, text, look = "") =>
    el("button", { type: "button", class: look, "data-key": name, click: () => act(name) }, text);
  const model = found.fine_tuned_model && encodeURIComponent(found.fine_tuned_model);
  return [
    paused ? button("resume", "Resume", "primary") : null,
    !paused && ["queued", "running"].includes(found.status) ? button("pause", "Pause") : null,
    ACTIVE.includes(found.status) ? button("cancel", "Cancel", "danger quiet") : null,
    model ? link(`#/playground?model=${model}`, "Chat with it", "chat", "primary") : null,
    model ? link(`#/jobs/new?model=${model}`, "Train further", "tune") : null,
  ];
}

function state(found, last, paused) {
  const steps = last ? `step ${number(last.step)} of ${number(last.total_steps)}` : "";
  if (paused) return `Paused${steps && ` at ${steps}`}.`;
  if (found.status === "running") {
    const left = found.estimated_finish && found.estimated_finish - Date.now() / 1000;
    return `Training${steps && `: ${steps}`}${left > 0 ? `, about ${duration(left)} left` : ""}.`;
  }
  return {
    validating_files: "The files are being checked.",
    queued: "It waits for its turn.",
    succeeded: `Done${found.finished_at ? `, after ${duration(found.finished_at - found.created_at)}` : ""}.`,
    failed: "It has failed.",
    cancelled: "It was cancelled.",
  }[found.status];
}

function details(found) {
  const numbers = found.hyperparameters;
  return facts([
    ["Model", found.model],
    ["Tuned model", found.fine_tuned_model],
    ["Method", found.method.type],
    ["Epochs", numbers.n_epochs],
    ["Batch size", numbers.batch_size],
    ["Learning rate", `× ${numbers.learning_rate_multiplier}`],
    ["Beta", found.method.dpo?.hyperparameters.beta],
    ["Seed", found.seed],
    ["Tokens trained", found.trained_tokens && number(found.trained_tokens)],
    ["Training file", el("a", { href: `#/files/${found.training_file}` }, found.training_file)],
    ["Validation file", found.validation_file && el("a", { href: `#/files/${found.validation_file}` }, found.validation_file)],
    ["Created", date(found.created_at)],
    ["Job", found.id],
  ]);
}

function checkpoints(found) {
  if (!found.length) return null;
  const cell = (value) => el("td", { class: "right" }, value);
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Checkpoints" }, el("table", {},
    el("caption", {}, "Checkpoints"),
    el("thead", {}, el("tr", {}, ["Step", "Training loss", "Validation loss", ""].map((name, place) =>
      el("th", { scope: "col", class: place < 3 && "right" }, name || el("span", { class: "sr-only" }, "Actions"))))),
    el("tbody", {}, found.map((one) => el("tr", {},
      cell(number(one.step_number)), cell(loss(one.metrics.train_loss)), cell(loss(one.metrics.full_valid_loss)),
      el("td", { class: "right" }, el("a", {
        href: `#/playground?model=${encodeURIComponent(one.fine_tuned_model_checkpoint)}`,
        "aria-label": `Chat with the checkpoint of step ${one.step_number}` }, "Chat")))))));
}

// What the model answers to a few prompts of the validation file, by the last evaluation.
function samples(text) {
  return el("section", { class: "card" }, el("h3", {}, "Samples"),
    el("pre", { class: "samples", tabindex: "0", "aria-label": "Samples" }, text.slice(SAMPLES.length)));
}

function event(one) {
  const time = new Date(one.created_at * 1000).toLocaleTimeString("en", { hour12: false });
  return el("li", { class: one.level }, el("time", {}, time), " ", one.message);
}

function update(found, saved) {
  const metrics = view.events.filter((one) => one.type === "metrics").map((one) => one.data);
  const last = metrics.find((data) => data.train_loss !== undefined);
  const valid = metrics.find((data) => data.full_valid_loss !== undefined);
  const paused = isPaused(found, view.events);
  when("badge", [found.status, paused], () => {
    fill(view.badge, badge(paused ? "paused" : found.status));
    fill(view.actions, actions(found, paused));
  });
  say(view.state, state(found, last, paused));
  view.progress.hidden = !ACTIVE.includes(found.status);
  view.progress.value = last ? last.step / last.total_steps : 0;
  when("error", found.error, () => fill(view.error, found.error ? el("p", { class: "notice bad", role: "alert" }, found.error.message) : null));
  when("details", { ...found, estimated_finish: null }, () => fill(view.facts, details(found)));
  when("checkpoints", saved.map((one) => one.id), () => fill(view.checkpoints, checkpoints(saved)));
  when("events", view.events.length, () => {
    view.curve.draw(metrics.toReversed());
    fill(view.latest, facts([
      ["Training", last && loss(last.train_loss)],
      ["Validation", valid && loss(valid.full_valid_loss)],
      ["Accuracy", last?.train_mean_token_accuracy != null ? `${(100 * last.train_mean_token_accuracy).toFixed(1)} %` : null],
    ]));
    const answered = view.events.find((one) => one.message.startsWith(SAMPLES));
    fill(view.samples, answered ? samples(answered.message) : null);
    fill(view.log, view.events.slice(0, MOST_EVENTS).map(event));
  });
}

export const job = {
  open(id, isEmpty) {
    wanted = id;
    place.hidden = !id && !isEmpty;
    if (view?.id === id) return;
    view = null;
    fill(place, isEmpty ? el("p", { class: "hint empty" }, "Choose a job to see its curve.") : null);
  },
  async refresh() {
    if (!wanted) return;
    const id = wanted;
    const path = `/fine_tuning/jobs/${encodeURIComponent(id)}`;
    const known = new Set(view?.id === id ? view.events.map((one) => one.id) : []);
    let found, fresh, saved;
    try {
      // The events come after the state: of a job that has ended none is missed.
      found = await get(path);
      [fresh, saved] = await Promise.all([listed(`${path}/events`, (one) => known.has(one)), listed(`${path}/checkpoints`)]);
    } catch (error) {
      if (error.status !== 404) throw error;
      fill(place, el("p", { class: "notice bad" }, error.message));
      return;
    }
    if (wanted !== id) return;
    if (view?.id !== id) view = build(found);
    const had = new Set(view.events.map((one) => one.id));
    view.events = [...fresh.filter((one) => !had.has(one.id)), ...view.events];
    update(found, saved);
  },
};
