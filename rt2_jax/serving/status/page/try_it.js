// The form: pictures and an instruction, answered by the policy and sent to no robot.

import { actionView } from "./action_view.js";
import { find, make, milliseconds } from "./dom.js";
import { ask, framePath, Lost, Refused } from "./server.js";

const PATIENCE_MS = 60000;
const pictures = new Map(); // view -> Blob
let policy = null;
let newest = () => null;
let refused = () => {};

function choose(view, blob, place) {
  pictures.set(view, blob);
  const image = make("img", { alt: `picture for view ${view}` });
  image.src = URL.createObjectURL(blob);
  const before = place.querySelector("img");
  if (before) URL.revokeObjectURL(before.src);
  place.replaceChildren(image);
}

function viewField(view) {
  const place = make("div", { class: "preview" }, make("span", { class: "soft" }, "choose or drop a JPEG or PNG"));
  const input = make("input", { type: "file", accept: "image/jpeg,image/png", "data-view": view });
  const label = make("label", { class: "view" }, make("span", {}, `View ${view}`), place, input);
  input.addEventListener("change", () => input.files[0] && choose(view, input.files[0], place));
  label.addEventListener("dragover", (event) => event.preventDefault());
  label.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) choose(view, event.dataTransfer.files[0], place);
  });
  return label;
}

function middle(name) {
  const range = (policy.state_ranges || {})[name];
  return range ? Number(((range[0] + range[1]) / 2).toPrecision(3)) : 0;
}

function stateField(name) {
  const range = (policy.state_ranges || {})[name];
  return make("label", { title: range ? `training saw ${range[0]} to ${range[1]}` : "" },
    name.replaceAll("_", " "),
    make("input", { type: "number", step: "any", required: "", value: middle(name), "data-state": name }));
}

export function setUpTry(served, newestSession, whenRefused) {
  policy = served;
  newest = newestSession;
  refused = whenRefused;
  pictures.clear();
  find("try-views").replaceChildren(...policy.views.map(viewField));
  const state = policy.state_fields || [];
  find("try-state-box").hidden = !state.length;
  find("try-state").replaceChildren(...state.map(stateField));
}

async function useNewest() {
  const session = newest();
  if (!session) {
    show(make("p", { class: "warning" }, "No robot has sent a frame that is still kept."));
    return;
  }
  for (const label of find("try-views").children) {
    const { view } = label.querySelector("input").dataset;
    if (!session.views[view]) continue;
    const response = await ask(`${framePath(session.id, view, session.frame)}&whole`);
    if (response.ok) choose(view, await response.blob(), label.querySelector(".preview"));
  }
  const fields = [...find("try-state").querySelectorAll("input")];
  if (session.state && session.state.length === fields.length) {
    fields.forEach((input, index) => { input.value = session.state[index]; });
  }
  if (!find("try-instruction").value) find("try-instruction").value = session.instruction;
}

const show = (...nodes) => find("try-answer").replaceChildren(...nodes);

async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 32768) {
    text += String.fromCharCode(...bytes.subarray(start, start + 32768));
  }
  return btoa(text);
}

function answerView(reply) {
  const { answer } = reply;
  const nodes = [];
  if (answer.plan) nodes.push(make("p", { class: "plan" }, answer.plan));
  nodes.push(actionView(policy, answer.actions));
  if (answer.tokens) {
    nodes.push(make("div", { class: "tokens" },
      make("div", {}, make("span", {}, "tokens"), make("code", {}, answer.tokens.join(" ")))));
  }
  const facts = [`${answer.horizon} action${answer.horizon === 1 ? "" : "s"}`];
  if (answer.confidence !== undefined) facts.push(`confidence ${(100 * answer.confidence).toFixed(0)} % a token`);
  facts.push(`waited ${milliseconds(answer.queue_ms)}, model ${milliseconds(answer.infer_ms)}, in all ${milliseconds(reply.total_ms)}`);
  nodes.push(make("p", { class: "soft" }, facts.join(" · ")));
  for (const warning of reply.warnings) nodes.push(make("p", { class: "warning" }, warning));
  return nodes;
}

async function submit(event) {
  event.preventDefault();
  const button = find("try-ask");
  button.disabled = true;
  show(make("p", { class: "soft" }, "The policy is asked …"));
  try {
    const images = {};
    for (const [view, blob] of pictures) images[view] = await base64(blob);
    const question = { instruction: find("try-instruction").value, images };
    const state = [...find("try-state").querySelectorAll("input")].map((input) => Number(input.value));
    if (state.length) question.state = state;
    const response = await ask("status/try", { method: "POST", body: JSON.stringify(question),
      headers: { "Content-Type": "application/json" } }, PATIENCE_MS);
    const reply = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
    if (reply.answer) show(...answerView(reply));
    else show(make("p", { class: "error" }, make("b", {}, `${reply.outcome || "refused"}: `), reply.error));
  } catch (error) {
    if (error instanceof Refused) refused();
    const what = error instanceof Lost ? `The server did not answer: ${error.message}.` : "A token is needed.";
    show(make("p", { class: "error" }, what));
  } finally {
    button.disabled = false;
  }
}

find("try-form").addEventListener("submit", submit);
find("try-newest").addEventListener("click", () => useNewest().catch(() => {}));
