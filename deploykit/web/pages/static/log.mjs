// The log of a node, of any length: blocks of 500 lines, 25,000 lines in the page at most, the rest fetched by range.
// The page is right without this. Text comes as text/plain and goes into text nodes only.

const BLOCK = 500, WINDOW = 50, FETCH = 2500, AHEAD = 1500; // lines, blocks, lines, pixels
const root = document.getElementById("log"), box = document.getElementById("log-lines");
const [range, pages, find, found, wrapLabel, followLabel] = ["range", "pages", "find", "found", "wrap", "follow"]
  .map((id) => document.getElementById(`log-${id}`));
const wrap = wrapLabel.firstElementChild, follow = followLabel.firstElementChild, count = new Intl.NumberFormat().format;
let total = Number(root.dataset.total), open = root.dataset.open === "1", blocks = [], busy = null, asked = 0, hit = null;

const last = () => blocks.at(-1).first + blocks.at(-1).lines - 1;
const lineHeight = () => parseFloat(getComputedStyle(box).lineHeight);
const below = () => box.scrollHeight - box.scrollTop - box.clientHeight;
const toEnd = () => { box.scrollTop = box.scrollHeight; };
function sized(one) { // its numbers, and its height before it is laid out
  one.nums.textContent = Array.from({ length: one.lines }, (_, at) => one.first + at).join("\n");
  one.el.style.containIntrinsicHeight = `auto ${one.lines * lineHeight()}px`;
  return one;
}

function made({ first, lines, text }) {
  const [el, nums, pre] = ["div", "pre", "pre"].map((tag) => document.createElement(tag));
  [el.className, el.id, nums.className, nums.ariaHidden, pre.textContent] = ["block", `L${first}`, "nums", "true", text];
  el.append(nums, pre);
  return sized({ first, lines, el, nums, pre });
}

function show() {
  const top = blocks[0].first + (wrap.checked ? 0 : Math.floor(box.scrollTop / lineHeight()));
  range.textContent = `Line ${count(Math.min(top, total))} of ${count(total)}; ${count(blocks[0].first)} to ` +
    `${count(last())} are loaded` + (open ? "; the node still works" : "");
}

async function load(from, lines) { // lines from number `from` on, as parts that become blocks
  const answer = await fetch(`${root.dataset.text}?from=${from}&limit=${lines}`, { cache: "no-store" });
  if (!answer.ok) throw new Error(String(answer.status));
  [total, open] = [Number(answer.headers.get("Log-Total")), answer.headers.get("Log-Open") === "1"];
  const first = Number(answer.headers.get("Log-First")), rows = (await answer.text()).split("\n").slice(0, -1);
  return Array.from({ length: Math.ceil(rows.length / BLOCK) }, (_, at) => rows.slice(at * BLOCK, (at + 1) * BLOCK))
    .map((part, at) => ({ first: first + at * BLOCK, lines: part.length, text: part.join("\n") + "\n" }));
}

/** Do one piece of work at a time. Where the server is away, the next scroll or tick tries again. */
const grow = (work) => { busy ||= work().then(show, () => {}).finally(() => { busy = null; }); };

async function before() {
  const from = Math.max(1, blocks[0].first - FETCH), fresh = (await load(from, blocks[0].first - from)).map(made);
  const height = box.scrollHeight;
  box.prepend(...fresh.map((one) => one.el));
  box.scrollTop += box.scrollHeight - height;
  blocks.unshift(...fresh);
  while (blocks.length > WINDOW) blocks.pop().el.remove();
}

async function after() {
  for (const part of await load(last() + 1, FETCH)) {
    const end = blocks.at(-1);
    if (end.lines + part.lines <= BLOCK) {
      end.lines += part.lines;
      end.pre.firstChild.appendData(part.text);
      sized(end);
    } else box.append(blocks[blocks.push(made(part)) - 1].el);
  }
  const height = box.scrollHeight;
  while (blocks.length > WINDOW) blocks.shift().el.remove();
  box.scrollTop -= height - box.scrollHeight;
  if (follow.checked) toEnd();
}

function look() {
  if (open) follow.checked = below() < 40;
  if (box.scrollTop < AHEAD && blocks[0].first > 1) grow(before);
  else if (below() < AHEAD && last() < total) grow(after);
  show();
}

function tick() {
  if (!open || document.hidden || performance.now() - asked < 400) return;
  asked = performance.now();
  if (!box) load(1, 1).then((parts) => parts.length && location.reload(), () => {});
  else grow(last() >= total || follow.checked ? after : () => load(total + 1, 1));
}

function search(words) { // marks the next hit after the last one, round to where it began; returns where it is
  const wanted = new RegExp(words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
  const start = Math.max(blocks.findIndex((one) => one.el === hit?.el), 0);
  for (let at = 0; at <= blocks.length; at += 1) {
    const one = blocks[(start + at) % blocks.length], text = one.pre.firstChild, mark = new Range();
    wanted.lastIndex = at === 0 && hit?.el === one.el ? hit.index + 1 : 0;
    const match = wanted.exec(text.data);
    if (!match) continue;
    hit = { el: one.el, index: match.index };
    mark.setStart(text, hit.index); mark.setEnd(text, hit.index + match[0].length);
    globalThis.CSS?.highlights?.set("found", new Highlight(mark));
    one.el.scrollIntoView({ block: "nearest" });
    box.scrollTop += mark.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 3;
    return `line ${count(one.first + text.data.slice(0, hit.index).split("\n").length - 1)}`;
  }
  return `not in lines ${count(blocks[0].first)} to ${count(last())}`;
}

if (box) {
  box.classList.add("live");
  blocks = [...box.children].map((el) => sized({ first: Number(el.dataset.first), lines: Number(el.dataset.lines), el,
    nums: el.children[0], pre: el.children[1] }));
  [find.hidden, wrapLabel.hidden, followLabel.hidden] = [false, false, !open];
  for (const link of pages.querySelectorAll("[rel=prev], [rel=next]")) link.hidden = true;
  if (!new URLSearchParams(location.search).has("from") && !location.hash) toEnd();
  box.addEventListener("scroll", look, { passive: true });
  wrap.addEventListener("change", () => { box.classList.toggle("wrapped", wrap.checked); show(); });
  follow.addEventListener("change", () => { if (follow.checked) toEnd(); });
  find.addEventListener("submit", (event) => {
    event.preventDefault();
    found.textContent = find.elements[0].value && search(find.elements[0].value);
  });
  look();
}
document.addEventListener("deploykit:event", ({ detail }) => ["log", "step", "deploy"].includes(detail.kind) && tick());
setInterval(tick, 3000);
