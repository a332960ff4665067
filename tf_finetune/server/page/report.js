// A file's report: what is in it, what is wrong with it, and an example as it is learnt.

import { get, remove } from "./api.js";
import { bytes, confirmed, date, el, facts, fill, find, number, options, say } from "./dom.js";
import { allModels } from "./models.js";

const place = find("report");
let file = null;
let wanted = null;
let model = null;
let told = null; // The file and model that are shown.

async function forget() {
  const own = file;
  if (!(await confirmed("Delete this file?", `${own.filename} is removed. Jobs that use it keep their copy.`, "Delete"))) return;
  try {
    await remove(`/files/${own.id}`);
    location.hash = "#/files";
  } catch (error) {
    find("report-body").prepend(el("p", { class: "notice bad", role: "alert" }, error.message));
  }
}

function head() {
  const select = el("select", { id: "report-model", change: (event) => { model = event.target.value; load(); } });
  return [
    el("a", { class: "back", href: "#/files" }, "All files"),
    el("div", { class: "row spread" },
      el("div", { class: "grow" },
        el("h2", { id: "report-title", class: "name" }, file.filename),
        el("p", { class: "hint" }, `${number(file.rows)} lines · ${bytes(file.bytes)} · ${date(file.created_at)}`)),
      el("div", { class: "row" },
        el("a", { class: "button primary", id: "report-train", href: "#/jobs/new" }, "Fine-tune on it"),
        el("button", { class: "danger quiet", type: "button", id: "report-delete", click: forget }, "Delete"))),
    el("div", { class: "row" }, el("label", { for: "report-model" }, "As this model would learn it"), select),
    el("div", { id: "report-body" }),
  ];
}

function errors(report) {
  if (!report.num_errors) {
    return el("p", { class: "notice good" }, report.is_whole ? "Every row can be used."
      : `Each of the first ${number(report.rows)} rows can be used; a job checks all.`);
  }
  const more = report.num_errors - report.errors.length;
  return el("div", { class: "notice bad" },
    el("h3", {}, "To mend before a training"),
    el("ul", {}, report.errors.map((error) => el("li", {},
      error.line && el("strong", {}, `Line ${number(error.line)}: `) || null, error.message))),
    more > 0 ? el("p", {}, `… and ${number(more)} more.`) : null);
}

function numbers(report) {
  const part = report.facts?.splits.train;
  const lengths = report.lengths;
  return facts([
    ["Rows read", number(report.rows)],
    ["Form", part?.forms?.join(", ")],
    ["Labels", part?.labels && number(Object.keys(part.labels).length)],
    ["Turns, at most", part?.most_turns ? number(part.most_turns) : null],
    ["Tokens counted in", lengths && lengths.rows < report.rows - report.num_errors ? `the first ${number(lengths.rows)} rows` : null],
    ["Tokens, median", lengths && number(Math.round(lengths.median))],
    ["Tokens, longest", lengths && number(lengths.longest)],
    ["Tokens in all", lengths && number(lengths.tokens)],
    ["Tokens learnt", lengths && number(lengths.answer_tokens)],
    ["Rows cut", lengths && `${number(lengths.cut_rows)} at ${number(lengths.max_seq_length)}`],
  ]);
}

function labels(report) {
  const counts = Object.entries(report.facts?.splits.train.labels ?? {});
  if (!counts.length) return null;
  const most = Math.max(...counts.map(([, count]) => count));
  const sorted = counts.sort((one, other) => other[1] - one[1]).slice(0, 100);
  return el("table", {},
    el("caption", {}, counts.length > 100 ? "The 100 most frequent labels" : "Labels"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Label"), el("th", { scope: "col", class: "right" }, "Rows"),
      el("th", { scope: "col" }, el("span", { class: "sr-only" }, "Share of the most frequent")))),
    el("tbody", {}, sorted.map(([name, count]) => el("tr", {},
      el("th", { scope: "row", class: "name" }, name), el("td", { class: "right" }, number(count)),
      el("td", {}, el("meter", { min: 0, max: most, value: count, "aria-label": `${count} of ${most}` }))))));
}

const TITLES = { chosen: "The better answer", rejected: "The other answer" };

function example(shown) {
  const title = TITLES[shown.title] ?? "An example";
  const size = shown.tokens ? `, ${number(shown.tokens)} tokens` : "";
  return el("figure", { class: "example" },
    el("figcaption", {}, el("strong", {}, title), ` (${shown.location}${size}): `, el("mark", {}, "marked"), " is what is learnt"),
    el("pre", { tabindex: "0" }, shown.pieces.map((piece) => (piece.trained ? el("mark", {}, piece.text) : piece.text))));
}

async function load() {
  const own = `${file.id} ${model}`;
  if (told === own) return;
  told = own;
  const body = find("report-body");
  fill(body, el("p", { class: "hint" }, "Reading …"));
  try {
    const report = await get(`/files/${file.id}/report?model=${encodeURIComponent(model)}`);
    if (told !== own) return;
    const method = report.method ? `&method=${report.method}` : "";
    find("report-train").href = `#/jobs/new?file=${file.id}&model=${encodeURIComponent(model)}${method}`;
    say(find("report-said"), report.num_errors ? `${file.filename}: ${report.num_errors} to mend.` : `${file.filename}: no mistake found.`);
    fill(body, errors(report), numbers(report), report.examples.map(example), labels(report),
      report.findings.length
        ? [el("h3", {}, "What was found"), el("ul", { class: "findings" }, report.findings.map((text) => el("li", {}, text)))]
        : null);
  } catch (error) {
    if (told === own) fill(body, el("p", { class: "notice bad" }, error.message));
  }
}

export const report = {
  open(id) {
    wanted = id;
    if (file?.id === id) return;
    file = told = null;
    fill(place, id ? null : el("p", { class: "hint empty" }, "Choose a file to see its report."));
  },
  async refresh(found) {
    if (!wanted) return;
    if (!found) {
      file = told = null;
      fill(place, el("a", { class: "back", href: "#/files" }, "All files"), el("p", { class: "notice bad" }, "This file is not there any more."));
      return;
    }
    if (!file) {
      file = found;
      fill(place, head());
    }
    const { base, all } = await allModels();
    if (!find("report-model")) return;
    options(find("report-model"), all.map((one) => one.id), model ?? base[0]?.id);
    model = find("report-model").value;
    if (model) await load();
    else say(find("report-body"), "No model would read it: start the server with --models=name=handle.");
  },
};
