// The nodes as cells, in the order of the list, with the server before them. A state has a colour, a shape and a name.
import { el, svg } from "./text.js";

export const kinds = {
  asked: { glyph: "·", label: "asked" },
  ready: { glyph: "o", label: "ready" },
  comparing: { glyph: "≈", label: "compares" },
  receiving: { glyph: "›", label: "receives" },
  verifying: { glyph: "≡", label: "reads back" },
  complete: { glyph: "+", label: "has it all" },
  slow: { glyph: "~", label: "slow" },
  committed: { glyph: "✓", label: "committed" },
  held: { glyph: "=", label: "held" },
  lost: { glyph: "?", label: "lost", bad: true },
  failed: { glyph: "×", label: "failed", bad: true },
  refused: { glyph: "!", label: "refused", bad: true },
  unreachable: { glyph: "–", label: "unreachable", bad: true },
};

const mostArcs = 60;

// short makes names fit into a cell: without a port or a domain that all have, only the ports of one host, and else their ends, in which they differ most.
export function short(names) {
  const most = 8;
  const parts = names.map((n) => n.match(/^(\[.*\]|[^:]*)(:\d+)$/) || [n, n, ""]);
  const same = (k) => names.length > 1 && parts.every((p) => p[k] === parts[0][k]);
  const bare = same(2) ? parts.map((p) => p[1]) : same(1) ? parts.map((p) => p[2]) : names;
  const domain = bare[0]?.slice(bare[0].indexOf("."));
  const one = bare.length > 1 && domain.startsWith(".") && bare.every((n) => n.endsWith(domain) && n.length > domain.length);
  return bare.map((n) => (one ? n.slice(0, -domain.length) : n)).map((n) => (n.length > most ? `…${n.slice(1 - most)}` : n));
}

export class Cells {
  constructor(field, names, { chosen, label }) {
    this.field = field;
    this.box = field.querySelector(".cells");
    this.arcs = field.querySelector(".arcs");
    this.label = label;
    this.chosenBy = chosen;
    this.at = -1;
    const size = names.length <= 48 ? "large" : "small";
    this.box.dataset.size = size;
    const called = short(names);
    const server = el("div", { class: "cell server", title: "the server", role: "presentation" }, el("b", {}, size === "large" ? "server" : "S"));
    this.cells = names.map((name, i) => {
      const glyph = el("i", {}, "");
      const cell = el("div", { class: "cell", role: "option", id: `${Math.random().toString(36).slice(2)}-${i}` }, glyph);
      if (size === "large") cell.append(el("b", {}, called[i]), el("span", {}));
      cell.dataset.i = i;
      return cell;
    });
    this.shown = names.map(() => ({}));
    this.all = [server, ...this.cells];
    this.box.replaceChildren(...this.all);
    this.box.addEventListener("mouseover", (e) => this.point(e));
    this.box.addEventListener("click", (e) => this.point(e));
    this.box.addEventListener("keydown", (e) => this.key(e));
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.links = [];
  }

  show(kindsNow, col, links) {
    kindsNow.forEach((kind, i) => {
      const cell = this.cells[i];
      const was = this.shown[i];
      if (was.kind !== kind) {
        was.kind = kind;
        cell.dataset.k = kind;
        cell.firstChild.textContent = kinds[kind].glyph;
        const label = this.label(i);
        cell.title = label;
        cell.setAttribute("aria-label", label);
      }
      const part = kind === "verifying" || kind === "comparing" ? col.ck[i] : col.pm[i];
      const step = this.box.dataset.size === "large" ? part : part - (part % 50);
      if (was.step !== step) {
        was.step = step;
        cell.style.setProperty("--part", `${step / 10}%`);
      }
      const next = col.fd[i] === i && (col.fl[i] & 1) !== 0;
      if (was.next !== next) {
        was.next = next;
        cell.toggleAttribute("data-next", next);
      }
      const around = (col.fl[i] & 2) !== 0;
      if (was.around !== around) {
        was.around = around;
        cell.toggleAttribute("data-around", around);
      }
      if (this.box.dataset.size === "large") {
        const text = kinds[kind].bad ? kinds[kind].label : kind === "committed" || kind === "held" ? kinds[kind].label : `${Math.floor(part / 10)} %`;
        if (was.text !== text) cell.lastChild.textContent = was.text = text;
      }
    });
    const key = JSON.stringify(links);
    if (key !== this.linksKey) {
      this.linksKey = key;
      this.links = links;
      this.draw();
    }
  }

  // draw draws the links that do not lead to the next cell.
  draw() {
    const box = this.field.getBoundingClientRect();
    this.arcs.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    const arrow = svg("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, orient: "auto-start-reverse" });
    arrow.append(svg("path", { d: "M0 0L8 4L0 8z", class: "tip" }));
    const defs = svg("defs");
    defs.append(arrow);
    const size = this.box.dataset.size === "large" ? 6 : 3.5;
    arrow.setAttribute("markerWidth", size);
    arrow.setAttribute("markerHeight", size);
    const row = (k) => this.all[k].offsetTop;
    // One that only leads from the end of a row to the beginning of the next would cross the whole field.
    const drawn = this.links.filter(([from, to, slow]) => slow || row(from) === row(to) || to - from > this.inRow());
    const paths = drawn.length > mostArcs ? [] : drawn.map(([from, to, slow]) => {
      const a = this.all[from].getBoundingClientRect(), b = this.all[to].getBoundingClientRect();
      const x1 = a.left + a.width / 2 - box.left, x2 = b.left + b.width / 2 - box.left, y1 = a.top - box.top, y2 = b.top - box.top;
      const up = Math.min(y1, y2) - Math.min(26, 10 + Math.abs(x2 - x1) / 20);
      return svg("path", { d: `M${x1} ${y1}C${x1} ${up} ${x2} ${up} ${x2} ${y2}`, class: slow ? "arc slow" : "arc", "marker-end": "url(#tip)" });
    });
    this.arcs.replaceChildren(defs, ...paths);
  }

  point(e) {
    const cell = e.target.closest("[data-i]");
    if (cell) this.choose(Number(cell.dataset.i));
  }

  key(e) {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.inRow(), ArrowUp: -this.inRow(), Home: -Infinity, End: Infinity }[e.key];
    if (step === undefined) return;
    e.preventDefault();
    this.choose(Math.max(0, Math.min(this.cells.length - 1, this.at + step)));
    this.cells[this.at].scrollIntoView({ block: "nearest" });
  }

  inRow() {
    const top = this.all[0].offsetTop;
    return Math.max(1, this.all.findIndex((c) => c.offsetTop !== top));
  }

  choose(i) {
    this.cells[this.at]?.removeAttribute("aria-selected");
    this.at = i;
    this.cells[i].setAttribute("aria-selected", "true");
    this.box.setAttribute("aria-activedescendant", this.cells[i].id);
    this.chosenBy(i);
  }
}
