// A loss curve in SVG, drawn anew as it grows.

import { el, loss, number } from "./dom.js";

const SPACE = "http://www.w3.org/2000/svg";
const HEIGHT = 260;
const EDGE = { top: 12, right: 14, bottom: 28, left: 48 };
// Of more points the curve is the mean of neighbours, and the points stand faintly behind it.
const FEW = 60;

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Returns round numbers from `low` to `high`, about `count` of them.
export function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough * 0.999);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) {
    found.push(Number(value.toPrecision(12)));
  }
  return found;
}

// Returns the points with the mean of each one's neighbours, as many as a fiftieth of all.
export function smoothed(points) {
  const reach = Math.ceil(points.length / 50);
  return points.map(([step], at) => {
    const near = points.slice(Math.max(0, at - reach), at + reach + 1);
    return [step, near.reduce((sum, [, value]) => sum + value, 0) / near.length];
  });
}

const line = (points, x, y) =>
  points.map(([step, value], at) => `${at ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");

const taken = (points, name) => points
  .filter((point) => Number.isFinite(point[name])).map((point) => [point.step, point[name]]);

export function lossChart(place) {
  let points = [];
  const legend = el("p", { class: "legend" });
  const readout = el("p", { class: "readout hint" });
  const holder = el("div", {});
  place.append(legend, holder, readout);

  function draw() {
    const width = holder.clientWidth;
    if (!width) return;
    const train = taken(points, "train_loss");
    const valid = taken(points, "full_valid_loss");
    const all = [...train, ...valid];
    if (!all.length) {
      holder.replaceChildren(el("p", { class: "hint empty" }, "The curve begins with the first step."));
      legend.replaceChildren();
      return;
    }
    const lastStep = Math.max(...points.map((point) => point.total_steps ?? 0), ...all.map(([step]) => step), 2);
    const values = all.map(([, value]) => value);
    const [low, high] = [Math.min(0, ...values), Math.max(...values) * 1.05 || 1];
    const x = (step) => EDGE.left + ((step - 1) / (lastStep - 1)) * (width - EDGE.left - EDGE.right);
    const y = (value) => HEIGHT - EDGE.bottom - ((value - low) / (high - low)) * (HEIGHT - EDGE.top - EDGE.bottom);
    const first = all[0];
    const label = `Training loss by step: ${loss(train[0]?.[1])} at the first point, ${loss(train.at(-1)?.[1])} at step ${number(train.at(-1)?.[0] ?? first[0])} of ${number(lastStep)}.`
      + (valid.length ? ` Validation loss: ${loss(valid.at(-1)[1])}.` : "");
    const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": label });
    for (const value of ticks(low, high, 4)) {
      picture.append(
        svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }),
        svg("text", { x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, String(value)));
    }
    for (const step of ticks(1, lastStep, Math.max(2, Math.floor(width / 100))).filter((step) => Number.isInteger(step) && x(step) > EDGE.left + 45)) {
      picture.append(svg("text", { x: x(step), y: HEIGHT - 6, "text-anchor": "middle" }, number(step)));
    }
    picture.append(svg("text", { x: EDGE.left, y: HEIGHT - 6 }, "step"));
    const isMany = train.length > FEW;
    if (isMany) picture.append(svg("path", { class: "train faint", d: line(train, x, y) }));
    picture.append(svg("path", { class: "train", d: line(isMany ? smoothed(train) : train, x, y) }));
    if (train.length === 1) picture.append(svg("circle", { class: "train", cx: x(train[0][0]), cy: y(train[0][1]), r: 3 }));
    picture.append(svg("path", { class: "valid", d: line(valid, x, y) }));
    for (const [step, value] of valid) picture.append(svg("circle", { class: "valid", cx: x(step), cy: y(value), r: 3.5 }));
    const hair = svg("line", { class: "hair", y1: EDGE.top, y2: HEIGHT - EDGE.bottom, visibility: "hidden" });
    picture.append(hair);
    picture.addEventListener("pointermove", (event) => point(event, train, valid, x, hair));
    picture.addEventListener("pointerleave", () => {
      hair.setAttribute("visibility", "hidden");
      readout.textContent = "";
    });
    holder.replaceChildren(picture);
    legend.replaceChildren(
      el("span", { class: "key train" }, isMany ? "training (mean of neighbours)" : "training"),
      ...(valid.length ? [el("span", { class: "key valid" }, "validation")] : []));
  }

  // Says what the curve is at the pointer.
  function point(event, train, valid, x, hair) {
    const at = event.clientX - holder.getBoundingClientRect().left;
    const [step, value] = train.reduce((one, other) => (Math.abs(x(other[0]) - at) < Math.abs(x(one[0]) - at) ? other : one), train[0] ?? valid[0]);
    hair.setAttribute("x1", x(step));
    hair.setAttribute("x2", x(step));
    hair.setAttribute("visibility", "visible");
    const near = valid.findLast(([other]) => other <= step);
    readout.textContent = `Step ${number(step)}: training ${loss(value)}${near ? `, validation ${loss(near[1])}` : ""}`;
  }

  new ResizeObserver(draw).observe(holder);
  return {
    draw(found) {
      points = found;
      draw();
    },
  };
}
