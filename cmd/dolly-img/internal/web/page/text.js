// What is said in more than one place. Everything that comes from nodes is put into text nodes, never into HTML.

export function el(tag, props = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props)) {
    if (k === "class") e.className = v;
    else if (v !== undefined && v !== null) e.setAttribute(k, v);
  }
  e.append(...children.filter((c) => c !== undefined && c !== null).map((c) => (c instanceof Node ? c : String(c))));
  return e;
}

export function svg(tag, props = {}, text) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(props)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
}

// fields returns the elements of a section by their data-f.
export function fields(section) {
  const f = {};
  for (const e of section.querySelectorAll("[data-f]")) f[e.dataset.f] = e;
  return f;
}

// say sets the text of an element, if it is another one.
export function say(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

export function bytes(n) {
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (n < 1000 || unit === "TB") return (n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)) + " " + unit;
    n /= 1000;
  }
}

export const rate = (n) => bytes(n) + "/s";

// clock is a time in seconds, as 1:05 or 2:00:05.
export function clock(s) {
  s = Math.max(0, Math.round(s));
  const two = (n) => String(n).padStart(2, "0");
  const h = Math.floor(s / 3600);
  return h ? `${h}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
}

// about is a time in seconds in one unit.
export function about(s) {
  if (s < 90) return `${Math.max(0, Math.round(s))} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
}

// some lists a few names, and says how many more there are.
export function some(names, few = 3) {
  const more = names.length - few;
  return names.slice(0, few).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

export const nodes = (n) => (n === 1 ? "1 node" : `${n} nodes`);

// time of the day at which something was, in milliseconds since 1970.
export const day = (ms) => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
