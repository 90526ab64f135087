// The page follows the events of this server (doc.go says what they have).
import { Chain } from "./chain.js";
import { Warm } from "./warm.js";
import { say, day } from "./text.js";

const main = document.getElementById("main");
const contact = document.getElementById("contact");
const chains = new Map();
let warm;
let last = 0; // when the last event came
let over = false;

function state(is, text) {
  contact.dataset.is = is;
  say(contact, text);
}

function heard() {
  last = Date.now();
  if (!over) state("live", "live");
}

const source = new EventSource("events");
const on = (name, take) =>
  source.addEventListener(name, (e) => {
    take(JSON.parse(e.data));
    heard();
  });

on("head", (head) => {
  chains.get(head.c)?.section.remove();
  const chain = new Chain(head);
  chains.set(head.c, chain);
  main.append(chain.section);
  title();
});
for (const name of ["full", "delta"]) {
  on(name, (frame) => {
    chains.get(frame.c)?.take(frame, name === "full");
    title();
  });
}
on("gone", (gone) => {
  chains.get(gone.c)?.section.remove();
  chains.delete(gone.c);
});
on("warm", (view) => {
  if (!warm) {
    warm = new Warm();
    main.prepend(warm.section);
  }
  warm.take(view);
});
source.addEventListener("bye", () => {
  over = true;
  source.close();
  state("over", `ended at ${day(Date.now())}; this is how it was last`);
});
source.onerror = () => {
  if (over) return;
  const when = last ? ` since ${day(last)}; this is how it was last` : "";
  state("lost", source.readyState === EventSource.CLOSED ? `refused: too many look already, or the address is an old one${when}` : `no contact${when}; trying again`);
};

function title() {
  const [chain] = chains.values();
  if (chain) document.title = `${chain.short()} – dolly-img`;
}

// Ages grow without events.
setInterval(() => {
  if (!over) warm?.ages();
}, 5000);
