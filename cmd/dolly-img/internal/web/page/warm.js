// What a controller keeps warm: images and groups of nodes as a matrix, and the nodes that are not warm.
import { el, fields, say, rate, about, clock, nodes } from "./text.js";

const glyphs = {
  warm: "✓", warming: "›", degraded: "~", blocked: "×", behind: "‹", missing: "o", full: "■", failed: "×", conflict: "!", away: "–", unknown: "·",
};

const now = () => Date.now() / 1000;
const age = (t) => about(now() - t);
const ago = (t) => (t ? `${about(now() - t)} ago` : "never");
const ahead = (t) => (t > now() ? `in ${about(t - now())}` : "now");

export class Warm {
  constructor() {
    this.section = document.getElementById("warm").content.cloneNode(true).firstElementChild;
    this.f = fields(this.section);
  }

  take(view) {
    this.view = view;
    this.draw();
  }

  ages() {
    if (this.view) this.draw();
  }

  draw() {
    const { view, f } = this;
    f.refused.hidden = !view.refused;
    say(f.refused, view.refused ? `The list is refused, and the one before stands, for ${age(view.refusedSince)}: ${view.refused}` : "");
    f.trouble.hidden = !view.trouble;
    say(f.trouble, view.trouble ? `The state cannot be kept, for ${age(view.troubleSince)}: ${view.trouble}` : "");
    f.stale.replaceChildren(...view.groups.filter((g) => g.stale).map((g) => el("li", {}, `the list of nodes ${g.name} is stale for ${age(g.since)}: ${g.stale}`)));
    this.section.querySelector(".matrix thead tr").replaceChildren(
      el("th", {}, "image"), ...view.groups.map((g) => el("th", {}, g.name, el("small", {}, ` ${nodes(g.nodes)}`))), el("th", {}, "state"), el("th", {}, "registry"),
    );
    this.section.querySelector(".matrix tbody").replaceChildren(...view.images.map((i) => this.image(i)));
    const rows = view.images.flatMap((i) => i.rows.map((r) => [i, r]));
    const box = this.section.querySelector(".rows");
    box.hidden = rows.length === 0;
    box.querySelector("tbody").replaceChildren(...rows.map(([i, r]) => el("tr", {},
      el("td", { class: "image" }, i.image), el("td", { class: "state" }, mark(r.state), ` ${r.state}`), el("td", { class: "names" }, r.nodes, r.count > 1 ? el("small", {}, ` ${r.count}`) : null),
      el("td", { class: "why" }, [r.why, r.behind && `has ${r.behind}`].filter(Boolean).join("; ")), el("td", { class: "since", "data-label": "for" }, r.since ? age(r.since) : ""), el("td", { class: "next", "data-label": "next try" }, r.next ? ahead(r.next) : ""))));
  }

  image(i) {
    const { groups } = this.view;
    const state = [i.state];
    if (i.rate > 0) state.push(rate(i.rate));
    if (i.left > 0) state.push(`${clock(i.left)} left`);
    return el("tr", {},
      el("th", { scope: "row", "data-label": "image" }, i.image, el("small", {}, [i.platform, i.digest].filter(Boolean).join(" "))),
      ...i.cells.map((c, k) => td(groups[k].name, c ? cell(c) : el("span", { class: "none", title: "not for this group" }, "–"))),
      td("state", mark(i.state), ` ${state.join(", ")}`, el("small", {}, i.reason || (i.last ? `warm ${ago(i.last)}` : ""))),
      td("registry", i.stale ? el("span", { class: "bad" }, `stale for ${age(i.since)}: ${i.stale}`) : `asked ${ago(i.found)}`, el("small", {}, i.next ? `again ${ahead(i.next)}` : "")));
  }
}

const td = (label, ...content) => el("td", { "data-label": label }, el("div", {}, ...content));


const mark = (state) => el("span", { class: "cell", "data-k": state, "aria-hidden": "true" }, glyphs[state] ?? "");

function cell(c) {
  const warm = c.states.warm ?? 0;
  const rest = Object.entries(c.states).filter(([s]) => s !== "warm").map(([s, n]) => `${n} ${s}`).join(", ");
  const bar = el("div", { class: "part", "data-full": warm === c.nodes ? "" : undefined, role: "img", "aria-label": `${warm} of ${c.nodes} warm` });
  bar.style.setProperty("--part", `${c.nodes ? (100 * warm) / c.nodes : 0}%`);
  return el("div", { class: "warmth" }, el("span", {}, `${warm} of ${c.nodes}`), bar, el("small", {}, rest));
}
