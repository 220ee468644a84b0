// The last minute in numbers and small charts.

import { count, draw, duration, find, make, milliseconds, say } from "./dom.js";

const KINDS = ["answered", "refused", "busy", "superseded", "late", "unsafe", "failed"];

export function showTiles(data) {
  const { server, traffic } = data;
  const last = traffic.per_second.slice(-11, -1); // the running second is not over
  const pace = last.reduce((sum, [good]) => sum + good, 0) / last.length;
  const missed = KINDS.slice(1).reduce((sum, kind) => sum + (traffic.outcomes[kind] || 0), 0);
  const total = traffic.latency.total;
  const tiles = [
    ["answers a second", pace.toFixed(pace < 9.95 ? 1 : 0), "mean of ten seconds"],
    ["median latency", milliseconds(total.p50), "arrival to answer, last minute"],
    ["99 % within", milliseconds(total.p99), "arrival to answer, last minute"],
    ["not answered", count(missed), "in the last minute, for whatever reason", missed > 0],
    ["in flight", count(server.in_flight), `waiting or being answered; largest batch ${server.largest_batch}`],
    ["connections", count(server.connections), "open now"],
    ["answers in all", count(server.counts.answered || 0), `since the start, ${duration(server.up_s)} ago`],
  ];
  find("tiles").replaceChildren(...tiles.map(([name, value, more, bad]) =>
    make("div", { title: more, class: bad ? "bad" : null }, make("dt", {}, name), make("dd", {}, value))));
}

function roundUp(value) {
  const ten = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((step) => step * ten).find((step) => step >= value);
}

function throughput(perSecond) {
  const top = roundUp(Math.max(4, ...perSecond.map(([good, bad]) => good + bad)));
  const picture = draw("svg", { class: "chart", viewBox: "0 0 300 70", role: "img",
    "aria-label": "requests of each second of the last minute" });
  for (const [level, y] of [[top, 8], [top / 2, 34]]) {
    picture.append(draw("line", { class: "grid", x1: 0, x2: 272, y1: y, y2: y }),
      draw("text", { x: 300, y: y + 3, class: "end" }, String(level)));
  }
  const width = 272 / perSecond.length;
  perSecond.forEach(([good, bad], index) => {
    const [a, b] = [(52 * good) / top, (52 * bad) / top];
    const x = index * width;
    if (good) picture.append(draw("rect", { class: "good", x, y: 60 - a, width: width - 1, height: a }));
    if (bad) picture.append(draw("rect", { class: "bad", x, y: 60 - a - b, width: width - 1, height: b }));
  });
  picture.append(draw("line", { class: "base", x1: 0, x2: 272, y1: 60, y2: 60 }),
    draw("text", { x: 0, y: 69 }, "60 s ago"), draw("text", { x: 272, y: 69, class: "end" }, "now"));
  return picture;
}

function latency(edges, parts) {
  const rows = Object.entries(parts);
  const used = rows.flatMap(([, part]) => part.histogram.flatMap((size, bin) => (size ? [bin] : [])));
  const first = Math.max(0, Math.min(...used) - 1);
  const end = Math.min(edges.length - 1, Math.max(...used) + 2);
  const range = Math.log(edges[end] / edges[first]);
  const place = (value) =>
    Math.min(300, Math.max(0, (300 * Math.log(value / edges[first])) / range));
  const names = { queue: "waited", infer: "model", total: "in all" };
  const height = 46;
  const picture = draw("svg", { class: "chart", viewBox: `0 0 300 ${rows.length * height + 14}`,
    role: "img", "aria-label": "histograms of waiting, inference and total time" });
  for (const [index, step] of [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].entries()) {
    const main = index % 3 === 0;
    if (step < edges[first] || step > edges[end] || (!main && range > Math.log(40))) continue;
    const x = place(step);
    picture.append(draw("line", { class: "grid", x1: x, x2: x, y1: 0, y2: rows.length * height }),
      draw("text", { x, y: rows.length * height + 11,
        class: x < 12 ? "" : x > 285 ? "end" : "middle" }, step >= 1000 ? `${step / 1000} s` : `${step} ms`));
  }
  rows.forEach(([name, part], row) => {
    const bottom = (row + 1) * height - 6;
    const top = Math.max(1, ...part.histogram);
    part.histogram.forEach((size, bin) => {
      if (!size) return;
      const tall = Math.max(1, (24 * size) / top);
      const [left, right] = [place(edges[bin]), place(edges[bin + 1])];
      picture.append(draw("rect", { class: `bin ${name}`, x: left, width: Math.max(1, right - left - 1),
        y: bottom - tall, height: tall },
        draw("title", {}, `${size} between ${edges[bin]} and ${edges[bin + 1]} ms`)));
    });
    picture.append(draw("line", { class: "base", x1: 0, x2: 300, y1: bottom, y2: bottom }),
      draw("text", { x: 0, y: bottom - 29, class: "strong" }, names[name] || name),
      draw("text", { x: 300, y: bottom - 29, class: "end" },
        `median ${milliseconds(part.p50)}, 99 % ${milliseconds(part.p99)}`));
  });
  return picture;
}

function shares(entries, className) {
  const top = Math.max(1, ...entries.map(([, size]) => size));
  return make("div", { class: "shares" }, entries.map(([name, size]) => {
    const fill = make("i", { class: className(name) });
    fill.style.width = `${(100 * size) / top}%`;
    return make("div", {}, make("span", {}, String(name)), make("span", { class: "track" }, fill),
      make("b", {}, count(size)));
  }));
}

const nothing = () => make("p", { class: "soft" }, "nothing in the last minute");

export function showTraffic(traffic) {
  say(find("window"), `last ${Math.round(traffic.window_s)} s`);
  find("throughput").replaceChildren(throughput(traffic.per_second));
  const some = traffic.latency.total.p50 !== null;
  find("latency").replaceChildren(some ? latency(traffic.edges_ms, traffic.latency) : nothing());
  const outcomes = KINDS.map((kind) => [kind, traffic.outcomes[kind] || 0])
    .filter(([kind, size]) => size || kind === "answered");
  find("outcomes").replaceChildren(shares(outcomes, (kind) => (kind === "answered" ? "good" : "bad")));
  find("batches").replaceChildren(
    traffic.batches.length ? shares(traffic.batches, () => "neutral") : nothing());
}
