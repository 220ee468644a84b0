// Asks once a second what is going on, and says clearly when nobody answers.

import { duration, find, say } from "./dom.js";
import { showModel } from "./model_card.js";
import { json, keepToken, Refused, token } from "./server.js";
import { ageSessions, showSessions } from "./sessions.js";
import { showTiles, showTraffic } from "./traffic.js";
import { setUpTry } from "./try_it.js";

const EVERY_MS = 1000;
let metadata = null;
let policies = {};
let last = null; // the newest numbers, and when they came
let cameAt = 0;
let running = null;

const policyOf = (session) => policies[session.task] || Object.values(policies)[0];
const newestSession = () =>
  last && last.sessions.find((session) => Object.keys(session.views).length && session.name !== "try-it");

function setState(kind, text, banner) {
  find("state").className = `state ${kind}`;
  say(find("state"), text);
  find("banner").hidden = !banner;
  find("banner").className = `banner ${kind}`;
  say(find("banner"), banner || "");
  document.body.classList.toggle("lost", kind === "lost");
}

async function readModel(schemaHash) {
  if (metadata && metadata.seen === schemaHash) return;
  const found = await json("metadata");
  policies = found.tasks || { "": found };
  const first = Object.values(policies)[0];
  metadata = { seen: schemaHash };
  say(find("title"), Object.values(policies).map((each) => each.embodiment || "a robot").join(", "));
  say(find("subtitle"), [found.checkpoint, found.mixture && `mixture ${found.mixture}`,
    `${first.action_space.control_rate_hz} Hz`].filter(Boolean).join(" · "));
  document.title = `${find("title").textContent} · RT-2 server`;
  showModel(found, policies);
  setUpTry(first, newestSession, askForKey);
}

function show(data) {
  last = data;
  cameAt = performance.now();
  const { server } = data;
  if (server.draining) {
    setState("ending", "ending", "The server is ending: it takes no new requests and finishes what is under way.");
  } else if (!server.working) {
    setState("bad", "not answering", "The server runs, but nothing is being answered. Look at its log.");
  } else setState("good", `serving for ${duration(server.up_s)}`, "");
  showTiles(data);
  showTraffic(data.traffic);
  showSessions(data.sessions, policyOf);
}

function lost(error) {
  const seconds = last ? (performance.now() - cameAt) / 1000 : 0;
  const since = last ? ` What you see is ${duration(seconds)} old.` : "";
  setState("lost", "connection lost", `The connection to the server is lost: ${error.message}.${since} Trying again.`);
  if (last) ageSessions(seconds);
}

function askForKey() {
  clearTimeout(running);
  running = null;
  setState("bad", "locked", "");
  const wrong = find("key-wrong");
  wrong.hidden = !token();
  say(wrong, token() ? "The server does not know this token." : "");
  keepToken(null);
  find("key").value = "";
  if (!find("key-dialog").open) find("key-dialog").showModal();
}

async function poll() {
  running = null;
  let again = true;
  try {
    const data = await json("status.json");
    await readModel(data.server.schema_hash);
    if (find("key-dialog").open) find("key-dialog").close();
    show(data);
  } catch (error) {
    if (error instanceof Refused) {
      again = false;
      askForKey();
    } else lost(error);
  }
  if (again && !document.hidden) running = setTimeout(poll, EVERY_MS);
}

find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const value = find("key").value.trim();
  if (!/^[\x21-\x7e]+$/.test(value)) {
    find("key-wrong").hidden = false;
    say(find("key-wrong"), "A token has letters, digits and signs only, and no spaces.");
    return;
  }
  keepToken(value);
  poll();
});
find("key-dialog").addEventListener("cancel", (event) => event.preventDefault());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && running === null && !find("key-dialog").open) poll();
});
const host = location.host || "127.0.0.1:8000";
const address = `${location.protocol === "https:" ? "wss" : "ws"}://${host}`;
say(find("address"), address);
say(find("example"), `rt2 act ${address} --image front.png --instruction "move to the red cube"`);
poll();
