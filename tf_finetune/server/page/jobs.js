// The list of jobs.

import { get } from "./api.js";
import { date, el, fill, find } from "./dom.js";
import { badge, job, nameOf } from "./job.js";
import { newJob } from "./new_job.js";

let shown = "";
let chosen = null;

function item(one) {
  return el("li", {},
    el("a", { class: "card", href: `#/jobs/${one.id}`, "data-key": one.id, "aria-current": one.id === chosen && "true" },
      el("span", { class: "row spread" }, el("strong", { class: "name" }, nameOf(one)), badge(one.status)),
      el("span", { class: "hint" }, `${one.model} · ${date(one.created_at)}`)));
}

export const jobs = {
  pause: 1000,
  open(id, query) {
    chosen = id;
    shown = "";
    find("jobs").classList.toggle("has-detail", id !== null);
    newJob.open(id === "new", query);
    job.open(id === "new" ? null : id, id === null);
  },
  async refresh() {
    const { data } = await get("/fine_tuning/jobs?limit=100");
    const now = JSON.stringify([data.map((one) => [one.id, one.status]), chosen]);
    if (now !== shown) {
      shown = now;
      fill(find("job-list"), data.length ? data.map(item) : el("li", { class: "hint" }, "None yet."));
    }
    await (chosen === "new" ? newJob.refresh() : job.refresh());
  },
};
