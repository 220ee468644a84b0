// One card for each session, changed in place.

import { actionView } from "./action_view.js";
import { ago, count, draw, find, make, milliseconds, say } from "./dom.js";
import { ask, framePath } from "./server.js";

const QUIET_S = 5; // after which a card is dimmed
const GONE_S = 15; // after which it stands behind the others
const cards = new Map();
const visible = new WeakSet();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) visible[entry.isIntersecting ? "add" : "delete"](entry.target);
}, { rootMargin: "200px" });

const WORDS = {
  answered: "answering", refused: "refused", late: "too late", failed: "failed", busy: "busy",
};

function newCard(session) {
  const parts = {
    dot: make("i", { class: "dot" }),
    name: make("h3", {}),
    pace: make("span", { class: "pace" }),
    age: make("span", { class: "age" }),
    views: make("div", { class: "frames" }),
    instruction: make("p", { class: "instruction" }),
    plan: make("p", { class: "plan" }),
    trouble: make("div", { class: "trouble" }),
    action: make("div", { class: "action-place" }),
    facts: make("dl", { class: "facts" }),
    tokens: make("p", { class: "tokens" }),
    spark: make("div", { class: "spark" }),
  };
  const node = make("article", { class: "card", "data-session": session.id },
    make("header", {}, parts.dot, parts.name, parts.pace, parts.age),
    make("div", { class: "scene" }, parts.views,
      make("div", { class: "words" }, parts.instruction, parts.plan, parts.facts)),
    parts.trouble, parts.action, make("footer", {}, parts.tokens, parts.spark));
  watcher.observe(node);
  return { node, parts, frame: 0, shown: new Map(), loading: false };
}

function facts(session) {
  const answer = session.answer;
  const found = [];
  if (answer) {
    const last = session.recent_ms.at(-1);
    found.push(["answered in", milliseconds(last),
      `waited ${milliseconds(answer.queue_ms)}, model ${milliseconds(answer.infer_ms)}, in a batch of ${answer.batch_size}`]);
    if (answer.confidence !== undefined) {
      found.push(["confidence", `${(100 * answer.confidence).toFixed(0)} %`,
        `a token on average (geometric mean); log-probability of the tokens ${answer.score}`]);
    } else if (answer.score !== undefined) found.push(["score", String(answer.score), ""]);
  }
  const bad = ["refused", "late", "failed", "busy"].filter((kind) => session.counts[kind]);
  found.push(["answers", count(session.counts.answered || 0),
    bad.map((kind) => `${session.counts[kind]} ${kind}`).join(", ")]);
  if (session.step !== null) found.push(["step", String(session.step), ""]);
  return found.map(([name, value, more]) =>
    make("div", { title: more }, make("dt", {}, name), make("dd", {}, value)));
}

function trouble(session) {
  const lines = [];
  if (session.error) {
    lines.push(make("p", { class: "error" }, make("b", {}, `${WORDS[session.outcome] || session.outcome}: `),
      session.error));
  }
  for (const warning of session.warnings) lines.push(make("p", { class: "warning" }, warning));
  return lines;
}

function spark(values) {
  if (values.length < 2) return [];
  const top = Math.max(...values) * 1.1;
  const points = values.map((value, index) =>
    `${((100 * index) / (values.length - 1)).toFixed(1)},${(20 - (20 * value) / top).toFixed(2)}`);
  return [make("span", { class: "soft" }, milliseconds(Math.max(...values))),
    draw("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", role: "img",
      "aria-label": "latency of the last answers" },
      draw("title", {}, `the last ${values.length} answers; the highest took ${milliseconds(Math.max(...values))}`),
      draw("polyline", { points: points.join(" ") }))];
}

function tokens(answer) {
  if (!answer || !answer.tokens) return "";
  const more = answer.token_count > answer.tokens.length ? " …" : "";
  const levels = answer.levels ? answer.levels[0].join(" ") : null;
  return levels ? `${levels}` : answer.tokens.join(" ") + more;
}

export function ageCard(card, age) {
  const { session } = card;
  const quiet = session.left || age > QUIET_S;
  card.node.classList.toggle("quiet", quiet);
  const bad = session.outcome && session.outcome !== "answered";
  card.parts.dot.className = `dot ${quiet ? "off" : bad ? "bad" : session.outcome ? "good" : "off"}`;
  say(card.parts.age, session.left ? `left ${ago(age)}` : ago(age));
}

async function loadFrames(card, session) {
  if (card.loading || card.frame === session.frame || !visible.has(card.node)) return;
  card.loading = true;
  try {
    for (const view of Object.keys(session.views)) {
      const response = await ask(framePath(session.id, view, session.frame));
      if (!response.ok) continue;
      const address = URL.createObjectURL(await response.blob());
      const image = card.shown.get(view);
      if (!image) continue;
      const before = image.src;
      image.src = address;
      image.parentNode.classList.remove("waiting");
      if (before.startsWith("blob:")) URL.revokeObjectURL(before);
    }
    card.frame = session.frame;
  } catch {
    // The next poll says what is wrong.
  } finally {
    card.loading = false;
  }
}

function frames(card, session) {
  const names = Object.keys(session.views);
  if (!names.length || names.join() === [...card.shown.keys()].join()) return;
  card.shown.clear();
  card.parts.views.replaceChildren(...names.map((view) => {
    const [height, width] = session.views[view];
    const image = make("img", { alt: `newest frame of view ${view}`, width, height });
    if (Math.max(width, height) < 160) image.className = "pixels";
    card.shown.set(view, image);
    return make("figure", { class: "waiting" }, image,
      make("figcaption", {}, view, make("small", {}, `${width} × ${height}`)));
  }));
}

function update(card, session, policy) {
  const { parts } = card;
  const answer = session.answer;
  card.session = session;
  say(parts.name, session.name);
  parts.name.title = `session ${session.name}, connection ${session.connection}`;
  say(parts.pace, session.per_second ? `${session.per_second.toFixed(1)} Hz` : "");
  say(parts.instruction, session.instruction || "no instruction yet");
  parts.instruction.classList.toggle("soft", !session.instruction);
  say(parts.plan, answer && answer.plan ? answer.plan : "");
  frames(card, session);
  parts.facts.replaceChildren(...facts(session));
  parts.trouble.replaceChildren(...trouble(session));
  parts.action.replaceChildren(...(answer ? [actionView(policy, answer.actions)] : []));
  parts.action.classList.toggle("stale", session.outcome !== "answered");
  say(parts.tokens, tokens(answer));
  parts.tokens.title = answer && answer.tokens ? `bins of the tokens ${answer.tokens.join(" ")}` : "";
  parts.spark.replaceChildren(...spark(session.recent_ms));
  ageCard(card, session.age_s);
  loadFrames(card, session);
}

const behind = (session) => (session.left || session.age_s > GONE_S ? 1 : 0);

export function showSessions(sessions, policyOf) {
  const ordered = [...sessions].sort((a, b) => behind(a) - behind(b) || a.id - b.id);
  const kept = new Set(sessions.map((session) => session.id));
  for (const [id, card] of cards) {
    if (kept.has(id)) continue;
    for (const image of card.shown.values()) URL.revokeObjectURL(image.src);
    card.node.remove();
    cards.delete(id);
  }
  const place = find("cards");
  ordered.forEach((session, index) => {
    if (!cards.has(session.id)) cards.set(session.id, newCard(session));
    const card = cards.get(session.id);
    if (place.children[index] !== card.node) place.insertBefore(card.node, place.children[index] || null);
    update(card, session, policyOf(session));
  });
  find("nobody").hidden = sessions.length > 0;
  const live = sessions.filter((session) => !session.left && session.age_s <= QUIET_S).length;
  say(find("robots-count"), sessions.length ? `${live} active, ${sessions.length} seen` : "");
}

// While nothing is heard of the server, what is shown grows old.
export function ageSessions(seconds) {
  for (const card of cards.values()) ageCard(card, card.session.age_s + seconds);
}
