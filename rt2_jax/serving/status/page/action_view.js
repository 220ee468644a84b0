// An action in native units: an arrow where the frame's axes are known, a bar for each number.

import { draw, make } from "./dom.js";

const FRAMES = ["base", "world", "tool"]; // frames with axes of their own
const RADIUS = 40;

// Fields in groups that share unit and frame, as [{name, fields: [{index, label, ...}]}].
export function groups(policy) {
  const bounds = policy.action_bounds || {};
  const found = [];
  policy.action_space.fields.forEach((field, index) => {
    const axis = /^(.*)_([xyz])$/.exec(field.name);
    const own = field.bounds && typeof field.bounds.low === "number" ? field.bounds : {};
    const whole = {
      ...field,
      index,
      label: axis ? axis[2] : field.name,
      axis: axis ? axis[2] : null,
      low: bounds.low ? bounds.low[index] : own.low,
      high: bounds.high ? bounds.high[index] : own.high,
    };
    const last = found.at(-1);
    const same = axis && last && last.stem === axis[1] && last.fields[0].unit === field.unit;
    if (same) last.fields.push(whole);
    else found.push({ stem: axis ? axis[1] : null, fields: [whole] });
  });
  return found;
}

export const unitOf = (field) => (field.unit === "1" || field.unit === "level" ? "" : field.unit);

export function valueText(field, value) {
  if (value === null || value === undefined) return "–";
  if (field.levels) return field.levels[value] ?? String(value);
  const size = Math.max(Math.abs(field.low ?? 1), Math.abs(field.high ?? 1));
  const digits = size < 0.2 ? 4 : size < 2 ? 3 : 2;
  const text = Math.abs(value).toFixed(digits);
  const sign = value < 0 ? "−" : field.low < 0 ? "+" : "";
  return `${sign}${text}${unitOf(field) ? ` ${unitOf(field)}` : ""}`;
}

const share = (field, value) => (value - field.low) / (field.high - field.low);

function bar(field, value, others) {
  const known = field.high > field.low && value !== null && value !== undefined;
  const picture = draw("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none",
    "aria-hidden": "true" }, draw("rect", { class: "ground", width: 100, height: 10 }));
  if (!known) return picture;
  const at = 100 * Math.min(1, Math.max(0, share(field, value)));
  const zero = field.low < 0 && field.high > 0 ? 100 * share(field, 0) : 0;
  picture.append(draw("rect", { class: `fill ${field.axis || ""}`, x: Math.min(at, zero),
    width: Math.max(0.8, Math.abs(at - zero)), height: 10 }));
  for (const other of others) {
    const place = 100 * Math.min(1, Math.max(0, share(field, other)));
    picture.append(draw("rect", { class: "tick", x: place - 0.4, width: 0.8, height: 10 }));
  }
  if (zero > 0) picture.append(draw("rect", { class: "zero", x: zero - 0.3, width: 0.6, height: 10 }));
  return picture;
}

function row(field, action, later) {
  const value = action[field.index];
  let words = valueText(field, value);
  if (field.polarity && field.high > field.low) {
    const high = Math.min(1, Math.max(0, share(field, value)));
    words += `, ${Math.round(100 * (field.polarity === "high_is_open" ? high : 1 - high))} % open`;
  }
  const outside = field.high > field.low && (value < field.low || value > field.high);
  return make("div", { class: `row${field.axis ? "" : " alone"}${outside ? " outside" : ""}`, title: describe(field) },
    field.axis ? make("span", { class: `name ${field.axis}` }, field.axis) : null,
    bar(field, value, later.map((step) => step[field.index])),
    make("span", { class: "value" }, words));
}

export function describe(field) {
  const words = [field.name];
  if (field.levels) words.push(field.levels.map((level, index) => `${index} = ${level}`).join(", "));
  else words.push(`${field.low} to ${field.high} ${unitOf(field)}`.trim());
  if (field.frame !== "none") words.push(`${field.frame.replaceAll("_", " ")} frame`);
  words.push(field.reference.replaceAll("_", " "));
  if (field.rotation) words.push(field.rotation.replaceAll("_", " "));
  if (field.polarity) words.push(field.polarity.replaceAll("_", " "));
  return words.join(", ");
}

// Whether a group is a translation along axes that are known: then it can be an arrow.
const isArrow = (group) =>
  group.fields.length > 1 && group.fields[0].unit === "m" && FRAMES.includes(group.fields[0].frame);

function tip(group, action) {
  const reach = Math.max(...group.fields.flatMap((field) => [Math.abs(field.low), Math.abs(field.high)]));
  const along = Object.fromEntries(group.fields.map((field) => [field.axis, action[field.index] / reach]));
  // Seen from +z: x upwards, y to the left, as a robot's base is drawn.
  return { x: 50 - RADIUS * (along.y ?? 0), y: 50 - RADIUS * (along.x ?? 0), z: along.z };
}

function arrow(group, actions) {
  const end = tip(group, actions[0]);
  const frame = group.fields[0].frame;
  const picture = draw("svg", { class: "compass", viewBox: "0 0 116 100", role: "img",
    "aria-label": `direction in the ${frame} frame` },
    draw("title", {}, `${frame} frame seen from +z: x upwards, y to the left; the circle is the bound`),
    draw("circle", { class: "ring", cx: 50, cy: 50, r: RADIUS }),
    draw("circle", { class: "ring inner", cx: 50, cy: 50, r: RADIUS / 2 }),
    draw("line", { class: "axis x", x1: 50, y1: 50, x2: 50, y2: 6 }),
    draw("line", { class: "axis y", x1: 50, y1: 50, x2: 6, y2: 50 }),
    draw("text", { class: "axis x", x: 54, y: 11 }, "x"),
    draw("text", { class: "axis y", x: 4, y: 46 }, "y"));
  for (const later of actions.slice(1)) {
    const place = tip(group, later);
    picture.append(draw("circle", { class: "later", cx: place.x, cy: place.y, r: 1.8 }));
  }
  const [dx, dy] = [end.x - 50, end.y - 50];
  const length = Math.hypot(dx, dy);
  if (length > 3) {
    const [ux, uy] = [dx / length, dy / length];
    const head = Math.min(9, length);
    const [bx, by] = [end.x - head * ux, end.y - head * uy];
    const points = [[end.x, end.y], [bx - 5 * uy, by + 5 * ux], [bx + 5 * uy, by - 5 * ux]];
    picture.append(draw("line", { class: "arrow", x1: 50, y1: 50, x2: bx, y2: by }),
      draw("polygon", { class: "head", points: points.map((point) => point.join(",")).join(" ") }));
  } else picture.append(draw("circle", { class: "head", cx: 50, cy: 50, r: 3 }));
  if (end.z !== undefined) {
    const height = RADIUS * Math.min(1, Math.abs(end.z));
    picture.append(
      draw("rect", { class: "ring", x: 104, y: 10, width: 7, height: 80, rx: 2 }),
      draw("rect", { class: "lift", x: 104, y: end.z > 0 ? 50 - height : 50, width: 7,
        height: Math.max(1, height) }),
      draw("line", { class: "axis", x1: 102, y1: 50, x2: 113, y2: 50 }),
      draw("text", { class: "axis z", x: 105, y: 7 }, "z"));
  }
  return picture;
}

function heading(group) {
  const field = group.fields[0];
  const frame = field.frame === "none" ? "" : `${field.frame.replaceAll("_", " ")} frame`;
  const bound = group.fields.every((each) => each.low === -each.high && each.high === field.high)
    ? `±${field.high} ${unitOf(field)}`
    : group.fields.length === 1 ? `${field.low} to ${field.high} ${unitOf(field)}` : unitOf(field);
  return make("div", { class: "group-name" }, (group.stem || field.label).replaceAll("_", " "),
    make("small", {}, [bound.trim(), frame].filter(Boolean).join(", ")));
}

// An action chunk: the first step large, later ones as marks.
export function actionView(policy, actions) {
  const first = actions[0];
  const all = groups(policy);
  if (policy.action_space.fields.length !== first.length) {
    return make("p", { class: "soft" }, first.join("  "));
  }
  const pictures = all.filter(isArrow).slice(0, 1).map((group) => arrow(group, actions));
  const chips = all.flatMap((group) => group.fields).filter((field) => field.levels).map((field) =>
    make("span", { class: `chip level-${first[field.index] ? "on" : "off"}`, title: describe(field) },
      field.name === "terminate" ? "" : `${field.label.replaceAll("_", " ")}: `,
      valueText(field, first[field.index])));
  const rows = all.map((group) => {
    const numbers = group.fields.filter((field) => !field.levels);
    if (!numbers.length) return null;
    return make("div", { class: "group" }, heading(group),
      numbers.map((field) => row(field, first, actions.slice(1))));
  });
  return make("div", { class: "action" }, pictures, make("div", { class: "rows" }, rows,
    chips.length ? make("div", { class: "chips" }, chips) : null));
}
