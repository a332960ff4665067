// Elements, made so that what data and models say is only ever text.

// Makes an element. `props` are attributes; functions are listeners by the event's name. Children
// are elements or texts; null ones are left out.
export function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

export const find = (id) => document.getElementById(id);

// Replaces an element's children, and keeps the focus on the one of the same `data-key`.
export function fill(parent, ...children) {
  const key = parent.contains(document.activeElement) && document.activeElement.dataset.key;
  parent.replaceChildren(...children.flat().filter((child) => child != null));
  if (key) [...parent.querySelectorAll("[data-key]")].find((e) => e.dataset.key === key)?.focus();
}

// Sets a text where it is another one, so that screen readers say it once.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Fills a select with values, or [value, text] pairs, and keeps what was chosen.
export function options(select, pairs, chosen = select.value) {
  const known = pairs.map((pair) => (Array.isArray(pair) ? pair : [pair, pair]));
  const shown = JSON.stringify(known);
  if (select.dataset.shown !== shown) {
    select.dataset.shown = shown;
    select.replaceChildren(...known.map(([value, text]) => el("option", { value }, text)));
  }
  if (known.some(([value]) => value === chosen)) select.value = chosen;
}

// Asks before something is lost; resolves to whether it shall be.
export function confirmed(title, text, action) {
  const dialog = find("confirm-dialog");
  find("confirm-title").textContent = title;
  find("confirm-text").textContent = text;
  find("confirm-yes").textContent = action;
  dialog.returnValue = "no";
  dialog.showModal();
  find("confirm-no").focus();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
    find("confirm-yes").onclick = () => dialog.close("yes");
    find("confirm-no").onclick = () => dialog.close("no");
  });
}

export function facts(pairs) {
  const known = pairs.filter(([, value]) => value != null && value !== "");
  return el("dl", { class: "facts" }, known.map(([name, value]) =>
    el("div", { class: String(value).length > 22 && "wide" }, el("dt", {}, name), el("dd", {}, value))));
}

const DATE = { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };

export const number = (value) => value.toLocaleString("en");
export const loss = (value) => (value == null ? "–" : value.toFixed(value < 0.1 ? 4 : 3));
export const date = (seconds) => new Date(seconds * 1000).toLocaleString("en", DATE);

export function bytes(count) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  const power = Math.min(3, Math.floor(Math.log2(Math.max(1, count)) / 10));
  return `${(count / 1024 ** power).toFixed(power && count / 1024 ** power < 10 ? 1 : 0)} ${units[power]}`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
