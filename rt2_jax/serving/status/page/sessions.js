// One card for each session, changed in place.

import { actionView } from "./action_view.js";
import { ago, count, draw, find, make, milliseconds, say } from "./dom.js";
import { ask, framePath } from "./server.js";

const QUIET_S = 5; // after which a card is dimmed
const GONE_S = 30; // after which a session is among the earlier ones
const cards = new Map();
// Frames are fetched for cards that can be seen.
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const card = [...cards.values()].find((each) => each.node === entry.target);
    if (!card) continue;
    card.visible = entry.isIntersecting;
    loadFrames(card);
  }
}, { rootMargin: "200px" });

const WORDS = {
  answered: "answering", refused: "refused", late: "too late", failed: "failed", busy: "busy",
  superseded: "superseded", unsafe: "beyond the limits",
};

function newCard() {
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
    tokens: make("div", { class: "tokens" }),
    spark: make("div", { class: "spark" }),
  };
  const node = make("article", { class: "card" },
    make("header", {}, parts.dot, parts.name, parts.pace, parts.age),
    make("div", { class: "scene" }, parts.views,
      make("div", { class: "words" }, parts.instruction, parts.plan, parts.facts)),
    parts.trouble, parts.action, make("footer", {}, parts.tokens, parts.spark));
  watcher.observe(node);
  return { node, parts, frame: "", shown: new Map(), loading: false, visible: false };
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
  const bad = ["refused", "late", "failed", "busy", "superseded", "unsafe"].filter((kind) => session.counts[kind]);
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
  return [make("span", { class: "soft" }, `peak ${milliseconds(Math.max(...values))}`),
    draw("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", role: "img",
      "aria-label": "latency of the last answers" },
      draw("title", {}, `the last ${values.length} answers; the highest took ${milliseconds(Math.max(...values))}`),
      draw("polyline", { points: points.join(" ") }))];
}

function tokens(answer) {
  if (!answer || !answer.tokens) return [];
  const more = answer.token_count > answer.tokens.length ? " …" : "";
  const line = (name, words, title) => make("div", { title }, make("span", {}, name), make("code", {}, words));
  return [
    line("tokens", answer.tokens.join(" ") + more, "ids of the action tokens in the vocabulary"),
    answer.levels ? line("bins", answer.levels[0].join(" "), "the bin of each field that they stand for") : null,
  ].filter(Boolean);
}

export function ageCard(card, age) {
  const { session } = card;
  const quiet = session.left || age > QUIET_S;
  card.node.classList.toggle("quiet", quiet);
  const bad = session.outcome && session.outcome !== "answered";
  card.parts.dot.className = `dot ${quiet ? "off" : bad ? "bad" : session.outcome ? "good" : "off"}`;
  say(card.parts.age, session.left ? `left ${ago(age)}` : ago(age));
}

async function loadFrames(card) {
  const { session } = card;
  const frame = `${session.id}/${session.frame}`;
  if (card.loading || card.frame === frame || !card.visible) return;
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
    card.frame = frame;
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
  card.node.dataset.session = session.name;
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
  parts.tokens.replaceChildren(...tokens(answer));
  parts.spark.replaceChildren(...spark(session.recent_ms));
  ageCard(card, session.age_s);
  loadFrames(card);
}

// Over: its connection has gone on to another session, or nothing has come for a while.
function isOver(session, newest) {
  const next = newest.get(session.connection);
  return (next !== session && session.age_s >= next.began_s)
    || session.age_s > (session.left ? QUIET_S : GONE_S);
}

// The sessions with a card, by the card's key, and the others. A connection keeps its card.
function split(sessions) {
  const newest = new Map();
  for (const session of sessions) {
    const other = newest.get(session.connection);
    if (!other || session.age_s < other.age_s) newest.set(session.connection, session);
  }
  const shown = new Map();
  const order = (a, b) => a.connection.localeCompare(b.connection, "en", { numeric: true }) || a.id - b.id;
  for (const session of sessions.filter((each) => !isOver(each, newest)).sort(order)) {
    const first = newest.get(session.connection) === session;
    shown.set(first ? session.connection : `${session.connection} ${session.id}`, session);
  }
  return { shown, earlier: sessions.filter((session) => isOver(session, newest)) };
}

function showEarlier(earlier) {
  find("earlier").hidden = !earlier.length;
  say(find("earlier-count"), String(earlier.length));
  if (!find("earlier").open) return;
  find("earlier-rows").replaceChildren(...earlier.map((session) => make("tr", {},
    make("td", { class: "cut", title: session.name }, session.name),
    make("td", { class: "cut", title: session.instruction }, session.instruction),
    make("td", {}, count(session.counts.answered || 0)),
    make("td", {}, session.outcome === "answered" ? "" : session.outcome),
    make("td", {}, session.left ? "left" : ""),
    make("td", {}, ago(session.age_s)))));
}

export function showSessions(sessions, policyOf) {
  const { shown, earlier } = split(sessions);
  for (const [key, card] of cards) {
    if (shown.has(key)) continue;
    for (const image of card.shown.values()) URL.revokeObjectURL(image.src);
    watcher.unobserve(card.node);
    card.node.remove();
    cards.delete(key);
  }
  const place = find("cards");
  [...shown].forEach(([key, session], index) => {
    if (!cards.has(key)) cards.set(key, newCard());
    const card = cards.get(key);
    update(card, session, policyOf(session));
    if (place.children[index] !== card.node) place.insertBefore(card.node, place.children[index] || null);
  });
  showEarlier(earlier);
  find("nobody").hidden = sessions.length > 0;
  find("silent").hidden = !sessions.length || shown.size > 0;
  const live = [...shown.values()].filter((session) => !session.left && session.age_s <= QUIET_S).length;
  say(find("robots-count"), shown.size ? `${live} asking` : "");
}

// While nothing is heard of the server, what is shown grows old.
export function ageSessions(seconds) {
  for (const card of cards.values()) ageCard(card, card.session.age_s + seconds);
}
