// What is served: everything that a robot engineer must know before the robot moves.

import { groups, unitOf } from "./action_view.js";
import { find, make } from "./dom.js";

const REFERENCES = {
  previous_target: "added to the previous target",
  current_state: "added to the measured state",
  chunk_start: "added to the state at the start of the chunk",
  absolute: "absolute",
  as_recorded: "as recorded: the data does not say",
};
const FIRST = ["checkpoint", "mixture", "task", "embodiment", "control_rate_hz", "prompt", "views",
  "camera_size", "image_slots", "image_size", "state_fields", "codec", "horizon", "terminate",
  "batch_sizes", "deterministic"];
const LAST = ["weights", "mixture_hash", "action_space_hash", "codec_hash", "vocabulary_hash",
  "schema_hash", "code_version", "protocol_version", "versions"];
const ELSEWHERE = ["action_space", "action_bounds", "tasks"];
const NAMES = {
  control_rate_hz: "control rate", camera_size: "camera size", image_slots: "image slots",
  image_size: "image size in the model", state_fields: "state that robots send",
  batch_sizes: "compiled batches", terminate: "what terminates", weights: "weights hash",
  code_version: "version of the training code", protocol_version: "version of the wire",
};

const pair = (size) => `${size[0]} × ${size[1]} (height × width)`;

function text(name, value) {
  if (value === null) return name === "camera_size" ? "any" : "none";
  if (name === "control_rate_hz") return `${value} Hz`;
  if (name.endsWith("_size") && Array.isArray(value)) return pair(value);
  if (name === "image_slots") {
    return value.map(([view, time]) => (time ? `${view} at ${time}` : `${view} now`)).join(", ");
  }
  if (name === "horizon") return `${value} action${value === 1 ? "" : "s"} an answer`;
  if (Array.isArray(value)) {
    return value.length ? value.map((each) => (typeof each === "object" ? JSON.stringify(each) : each)).join(", ") : "none";
  }
  if (typeof value === "object") {
    return Object.entries(value).map(([key, each]) =>
      `${key.replaceAll("_", " ")} ${typeof each === "object" ? JSON.stringify(each) : each}`).join(", ");
  }
  return String(value);
}

function line(name, value) {
  const hash = typeof value === "string" && /^[0-9a-f]{40,}$/.test(value);
  const words = text(name, value);
  return make("div", {}, make("dt", {}, NAMES[name] || name.replaceAll("_", " ")),
    make("dd", hash ? { class: "hash", title: words } : {}, hash ? make("code", {}, words) : words));
}

function fieldRow(field) {
  const cells = field.levels
    ? [field.levels.map((level, index) => `${index} = ${level}`).join(", "), "", "", ""]
    : [unitOf(field) || "ratio",
      `${field.low ?? field.bounds.low} to ${field.high ?? field.bounds.high}`,
      field.frame === "none" ? "–" : field.frame.replaceAll("_", " "),
      REFERENCES[field.reference] || field.reference];
  const more = [field.rotation, field.polarity].filter(Boolean).map((word) => word.replaceAll("_", " "));
  return make("tr", {}, make("th", { scope: "row" }, String(field.index)),
    make("td", {}, make("code", {}, field.name)),
    field.levels ? make("td", { colspan: 4 }, cells[0]) : cells.map((cell) => make("td", {}, cell)),
    make("td", {}, more.join(", ")));
}

function actionTable(policy) {
  const fields = groups(policy).flatMap((group) => group.fields);
  return make("div", { class: "box scroll" },
    make("h3", {}, `Action space ${policy.action_space.name}`),
    make("table", {},
      make("thead", {}, make("tr", {}, ["", "field", "unit", "bounds", "frame", "reference", ""].map(
        (name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, fields.map(fieldRow))));
}

function policyCard(policy) {
  const known = new Set([...FIRST, ...LAST, ...ELSEWHERE]);
  const others = Object.keys(policy).filter((name) => !known.has(name));
  const lines = (names) => names.filter((name) => policy[name] !== undefined)
    .map((name) => line(name, policy[name]));
  return make("div", { class: "model" },
    make("div", { class: "box" }, make("dl", { class: "lines" }, lines(FIRST))),
    make("div", {}, actionTable(policy),
      make("details", { class: "box" }, make("summary", {}, "Hashes, versions and the rest"),
        make("dl", { class: "lines" }, lines(LAST), lines(others)))));
}

export function showModel(metadata, policies) {
  find("card").replaceChildren(...Object.entries(policies).map(([name, policy]) =>
    metadata.tasks
      ? make("details", {}, make("summary", {}, `${name}, ${policy.embodiment}`), policyCard(policy))
      : policyCard(policy)));
}
