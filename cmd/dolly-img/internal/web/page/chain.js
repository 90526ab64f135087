// One transfer: its sums, its nodes as cells, who waits for whom, and what happened.
import { el, fields, say, bytes, rate, clock, day, some, nodes } from "./text.js";
import { Graph } from "./graph.js";
import { Cells, kinds } from "./cells.js";

const columns = { st: 0, wt: 0, wf: -1, si: 0, pm: 0, ck: 0, rt: 0, fd: -1, fl: 0, ro: -1 };
const LINKED = 1, BYPASSED = 2, SLOW = 4;

const phases = {
  asking: "asking the nodes", comparing: "nodes compare what they have", sending: "sending", verifying: "nodes read back what they stored",
  committing: "all have it; nodes commit", ended: "ended",
};
const limits = {
  processor: "processors", hash: "hashing without SHA instructions", disk: "disks", network: "the network", policy: "the rate in the nodes' policy.toml",
  rate: "--rate", source: "the source on the server",
};
const waitsFor = {
  answer: "has not answered", transfer: "waits for another transfer on it to end", start: "waits for the start", link: "waits for a new link",
  feeder: "waits for its feeder", receiver: "waits for whom it feeds", disk: "waits for its disk", processor: "is kept busy by its processor",
  limit: "waits for its rate limit", source: "has everything; the server still reads the source", commit: "commits",
};

export class Chain {
  constructor(head) {
    this.head = head;
    this.size = head.names.length;
    this.section = document.getElementById("chain").content.cloneNode(true).firstElementChild;
    this.f = fields(this.section);
    this.rows = [];
    this.reset();
    say(this.f.title, `${head.title} → ${nodes(this.size)}`);
    this.graph = new Graph(this.section.querySelector(".graph"), head.history, head.began);
    this.cells = new Cells(this.section.querySelector(".field"), head.names, {
      chosen: (i) => this.detail(i),
      label: (i) => `${head.names[i]}: ${kinds[this.kind(i)].label}`,
    });
    this.filter = this.section.querySelector("input");
    this.filter.addEventListener("input", () => this.table());
    this.section.querySelector("details").addEventListener("toggle", () => this.table());
    this.chosen = -1;
  }

  reset() {
    this.col = {};
    for (const [name, value] of Object.entries(columns)) this.col[name] = new Int32Array(this.size).fill(value);
  }

  take(frame, full) {
    if (full) this.reset();
    for (const [name, c] of Object.entries(frame.columns)) {
      const to = this.col[name];
      if (!to) continue;
      if (c.d) to.set(c.d);
      let at = 0;
      (c.i ?? []).forEach((gap, k) => {
        at += gap;
        to[at] = c.v[k];
      });
    }
    if (frame.rows) this.rows = frame.rows;
    this.frame = frame;
    this.kindsNow = Array.from({ length: this.size }, (_, i) => this.kind(i));
    this.sums();
    this.cells.show(this.kindsNow, this.col, this.links());
    this.legend();
    this.waits();
    this.reasons();
    this.table();
    if (this.chosen >= 0) this.detail(this.chosen);
    if (frame.phase !== "ended") this.graph.add(frame.t, frame.rate);
  }

  state(i) { return this.head.states[this.col.st[i]]; }
  wait(i) { return this.head.waits[this.col.wt[i]]; }
  name(i) { return i === 0 ? "the server" : this.head.names[i - 1]; } // by the numbers of wf and fd
  since(i) { return this.frame.t - this.col.si[i]; }
  row(i) { return this.rows.find((r) => r.id === this.col.ro[i]); }

  // kind is how a node is drawn.
  kind(i) {
    const state = this.state(i);
    switch (state) {
      case "pending":
        switch (this.wait(i)) {
          case "answer": case "transfer": return "asked";
          case "start": return "ready";
        }
        return this.frame?.phase === "comparing" ? "comparing" : "asked";
      case "serving":
        if (this.col.fl[i] & SLOW) return "slow";
        if (this.wait(i) === "source" || this.wait(i) === "commit") return "complete";
        return this.col.ck[i] > 0 ? "verifying" : "receiving";
    }
    return state;
  }

  short() {
    const f = this.frame;
    if (!f) return this.head.title;
    if (f.phase === "ended") return `ended: ${this.head.title}`;
    return f.total > 0 && f.phase !== "asking" ? `${this.percent()} ${this.head.title}` : this.head.title;
  }

  percent() { return `${Math.floor((100 * this.frame.bytes) / this.frame.total)} %`; }

  sums() {
    const { f, frame } = this;
    const ended = frame.phase === "ended";
    const good = this.count((k) => k === "committed" || k === "held");
    const bad = this.count((k) => kinds[k].bad);
    say(f.phase, `${phases[frame.phase] ?? frame.phase}, ${clock(frame.t)}`);
    say(f.percent, frame.total > 0 ? this.percent() : bytes(frame.bytes));
    say(f.rate, ended || frame.rate < 1 ? "–" : rate(frame.rate));
    say(f.left, frame.left > 0 && !ended ? clock(frame.left) : "–");
    say(f.nodes, `${ended ? good : frame.done} of ${this.size}`);
    say(f.out, String(bad));
    f.outbox.classList.toggle("bad", bad > 0);
    const bar = this.section.querySelector(".bar");
    const part = frame.total > 0 ? (100 * frame.bytes) / frame.total : ended ? 100 : 0;
    bar.firstElementChild.style.width = `${part}%`;
    bar.setAttribute("aria-valuenow", Math.floor(part));
    let limit = "";
    if (!ended && frame.slowest) limit = `Slowest: ${frame.slowest}`;
    else if (!ended && limits[frame.limit]) limit = `Limited by ${limits[frame.limit]}`;
    say(f.limit, limit);
    f.result.hidden = !frame.result;
    say(f.result, frame.result);
    f.result.classList.toggle("bad", bad > 0);
  }

  count(is) { return this.kindsNow.filter(is).length; }

  legend() {
    const counts = {};
    for (const k of this.kindsNow) counts[k] = (counts[k] ?? 0) + 1;
    const text = JSON.stringify(counts);
    if (text === this.legendText) return;
    this.legendText = text;
    this.section.querySelector(".legend").replaceChildren(
      ...Object.keys(kinds).filter((k) => counts[k]).map((k) => el("li", {}, el("span", { class: "cell", "data-k": k, "aria-hidden": "true" }, kinds[k].glyph), `${counts[k]} ${kinds[k].label}`)),
    );
  }

  // links are those that do not lead from a node to the one behind it, as [from, to, slow] in numbers of wf.
  links() {
    const all = [];
    for (let i = 0; i < this.size; i++) {
      const from = this.col.fd[i];
      if (from >= 0 && from !== i && ["receiving", "verifying", "slow", "complete", "committed"].includes(this.kindsNow[i])) {
        all.push([from, i + 1, (this.col.fl[i] & SLOW) !== 0]);
      }
    }
    const lines = [];
    for (const [from, to, slow] of all) {
      const around = [];
      for (let k = from + 1; k < to; k++) if (this.col.fl[k - 1] & BYPASSED) around.push(this.name(k));
      if (slow) lines.push(`${this.name(to)} is slow, and served behind the others by ${this.name(from)}`);
      else if (around.length) lines.push(`a bypass runs from ${this.name(from)} to ${this.name(to)}, around ${some(around)}`);
      else lines.push(`${this.name(from)} feeds ${this.name(to)}`);
    }
    const text = lines.join("\n");
    if (text !== this.waysText) {
      this.waysText = text;
      const most = 6;
      const items = lines.slice(0, most).map((l) => el("li", {}, l));
      if (lines.length > most) items.push(el("li", {}, `and ${lines.length - most} more links like these`));
      this.f.ways.replaceChildren(...items);
      this.f.waysbox.hidden = items.length === 0;
    }
    return all;
  }

  detail(i) {
    this.chosen = i;
    if (i < 0 || !this.frame) return;
    const parts = [`${this.head.names[i]}: ${kinds[this.kind(i)].label}, has ${this.col.pm[i] / 10} %`];
    const fed = this.col.fd[i];
    const serving = this.state(i) === "serving";
    if (serving && this.col.rt[i] > 0) parts.push(rate(this.col.rt[i] * 1000));
    if (fed >= 0) parts.push(`${serving && this.col.fl[i] & LINKED ? "fed" : "was fed"} by ${this.name(fed)}`);
    const wait = this.waitText(i);
    if (wait) parts.push(`${wait}, for ${clock(this.since(i))}`);
    const row = this.row(i);
    if (row?.why) parts.push(row.why);
    say(this.f.detail, parts.join(" · "));
  }

  // waitText is what a node waits for, and for whom.
  waitText(i) {
    const wait = this.wait(i);
    const whom = this.col.wf[i];
    if ((wait === "feeder" || wait === "receiver") && whom >= 0) return `waits for ${this.name(whom)}`;
    return waitsFor[wait] ?? "";
  }

  // waits shows for whom most nodes wait in the end. Who waits for its feeder or for whom it feeds waits for what that one waits for.
  waits() {
    const ends = new Map(); // by the number of whom all wait for, 0 the server
    const kindsOf = new Map();
    for (let i = 0; i < this.size; i++) {
      const wait = this.wait(i);
      if (wait === "feeder" || wait === "receiver") {
        const end = this.end(i, wait);
        if (end !== i + 1) ends.set(end, [...(ends.get(end) ?? []), i]);
      } else if (wait) {
        kindsOf.set(wait, [...(kindsOf.get(wait) ?? []), i]);
      }
    }
    const lines = [];
    for (const [end, who] of [...ends].sort((a, b) => b[1].length - a[1].length).slice(0, 5)) {
      const why = end > 0 && this.wait(end - 1) ? `, which ${this.waitText(end - 1)} (for ${clock(this.since(end - 1))})` : "";
      lines.push([`${who.length === 1 ? "waits" : "wait"} for ${this.name(end)}${why}`, who]);
    }
    for (const [wait, who] of kindsOf) lines.push([`${waitsFor[wait]} (for ${clock(Math.max(...who.map((i) => this.since(i))))}${who.length > 1 ? " at most" : ""})`, who]);
    const body = this.section.querySelector(".waits tbody");
    if (!lines.length) lines.push(["nobody waits", []]);
    body.replaceChildren(...lines.map(([what, who]) => el("tr", {}, el("td", { class: "n" }, who.length || ""), el("td", {}, what), el("td", { class: "names" }, some(who.map((i) => this.head.names[i]))))));
  }

  end(i, wait) {
    for (let steps = 0; steps < this.size; steps++) {
      const next = this.col.wf[i];
      if (next <= 0) return next < 0 ? i + 1 : 0;
      i = next - 1;
      if (this.wait(i) !== wait) return i + 1;
    }
    return i + 1;
  }

  reasons() {
    const box = this.section.querySelector(".rows");
    const text = JSON.stringify(this.rows);
    box.hidden = this.rows.length === 0;
    if (text !== this.rowsText) {
      this.rowsText = text;
      box.querySelector("tbody").replaceChildren(...this.rows.map((r) => {
        const i = this.col.ro.indexOf(r.id);
        const kind = i >= 0 ? this.kindsNow[i] : r.state;
        return el("tr", {}, el("td", { class: "state" }, el("span", { class: "cell", "data-k": kind, "aria-hidden": "true" }, kinds[kind]?.glyph ?? ""), ` ${kinds[kind]?.label ?? kind}`),
          el("td", { class: "names" }, r.nodes, r.count > 1 ? el("small", {}, ` ${r.count}`) : null), el("td", { class: "why" }, r.why), el("td", { class: "since", "data-label": "at" }, day(this.head.began + 1000 * r.since)));
      }));
    }
  }

  // table shows all nodes, if somebody wants to see them.
  table() {
    if (!this.section.querySelector("details").open || !this.frame) return;
    const most = 200;
    const want = this.filter.value.trim().toLowerCase();
    const all = [];
    for (let i = 0; i < this.size; i++) {
      if (!want || this.head.names[i].toLowerCase().includes(want) || kinds[this.kindsNow[i]].label.includes(want)) all.push(i);
    }
    say(this.f.shown, all.length > most ? `the first ${most} of ${all.length}` : nodes(all.length));
    this.section.querySelector(".all tbody").replaceChildren(...all.slice(0, most).map((i) => el("tr", {},
      el("td", {}, this.head.names[i]), el("td", {}, kinds[this.kindsNow[i]].label), el("td", { class: "n" }, `${this.col.pm[i] / 10} %`),
      el("td", { class: "n" }, this.col.rt[i] ? rate(this.col.rt[i] * 1000) : ""), el("td", {}, this.col.fd[i] >= 0 ? this.name(this.col.fd[i]) : ""),
      el("td", {}, this.waitText(i)), el("td", { class: "n" }, clock(this.since(i))), el("td", { class: "why" }, this.row(i)?.why ?? ""))));
  }
}
