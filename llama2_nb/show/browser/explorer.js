// @ts-check
// The page: one story, one prompt, one linked view. The engine is in a worker.

const MODEL = "tales_q80.bin", VOCABULARY = "tok896.bin", SHOWN = 10;
const EXAMPLES = [
  "Once there was a boy named Ben. One day,",
  "Lily had a red kite. Lily",
  "Tom and the dog went to the",
  "Once upon a time",
];

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

/** @param {string} tag @param {object} [properties] @param {...(Node | string)} children */
function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** @type {any} */
const state = {
  config: null, pieces: [], run: 0, ready: false,
  tokens: [], // what the engine said of each position
  chosen: -1, // position
  head: { layer: 4, head: 7 },
  off: new Set(), // "layer.head"
  forks: [], // {name, request}
  request: null, // what is written now
  fork: -1,
  compare: "", // the heading of the text before, where it is shown
  whole: "",
};

let worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });

/** @param {string} text @param {boolean} [bad] */
function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

/** A token as a label. @param {number} id */
const label = (id) => id === 1 ? "start" : state.pieces[id].replace(/^ /, "␣")
  .replace("<0x0A>", "↵").replace(/\n/g, "");

// ---- asking the engine

/** @param {any} [change] of the request: prompt, ids or what else */
function write(change = {}) {
  if (!state.ready) return;
  const request = {
    prompt: $("prompt").value, ids: null, temperature: +$("temperature").value,
    topP: +$("top-p").value, seed: Math.max(1, Math.floor(+$("seed").value || 1)),
    off: [...state.off].sort(), steps: 0, ...change,
  };
  state.request = request;
  state.tokens = [];
  state.follow = true;
  state.keep = change.keep ?? -1; // the position that stays chosen
  $("story").replaceChildren();
  $("other").hidden = true;
  worker.postMessage({ type: "write", run: ++state.run, ...request });
  remember();
}

/** @param {any[]} tokens */
const textOf = (tokens) => tokens.map((t) => t.text).join("");

worker.onmessage = ({ data }) => receive(data);

/** @param {any} data */
function receive(data) {
  if (data.type === "error") return say(data.message, true);
  if (data.type === "ready") {
    Object.assign(state, { config: data.config, pieces: data.pieces, ready: true });
    buildHeads();
    say(`The model is here: ${(data.bytes / 1e6).toFixed(1)} MB.`);
    return restore();
  }
  if (data.run !== state.run) return;
  if (data.type === "token") return show(data);
  const speed = Math.round(data.tokens / data.seconds);
  say(`${data.story ? "The model ended the story" : "The context is full"} after `
    + `${data.tokens} tokens (${speed} tokens a second).`);
  $("announce").textContent = textOf(state.tokens);
  finish();
}

// ---- the story

/** A new token has come. @param {any} token */
function show(token) {
  state.tokens.push(token);
  // spans, since a line may break within a button's neighbours, but not within a word
  const node = make("span", { className: "tok", textContent: token.pos ? token.text : "start" });
  node.setAttribute("role", "button");
  node.tabIndex = -1; // one of all words takes the focus: the chosen one
  if (!token.given) node.classList.add("written");
  if (!token.pos) node.classList.add("bos");
  node.dataset.pos = String(token.pos);
  node.setAttribute("aria-label", `word ${token.pos}: ${label(token.id)}`);
  $("story").append(node);
  $("cache").max = state.config.seqLen;
  $("cache").value = token.pos + 1;
  $("cache-says").textContent =
    `${token.pos + 1} of ${state.config.seqLen} positions have their keys and values kept`;
  if (state.keep >= 0 ? token.pos === state.keep : token.given) choose(token.pos);
}

function finish() {
  const { request, whole: before } = state;
  state.whole = textOf(state.tokens); // the last text that was written to its end
  if (before && state.compare) {
    $("other").hidden = false;
    $("other-title").textContent = state.compare;
    $("other-text").textContent = before;
  }
  state.compare = "";
  const off = request.off.length ? `, without ${request.off.join(" and ")}` : "";
  const text = textOf(state.tokens), name = `${text.slice(0, 90)}…${off}`;
  if (!state.forks.some((/** @type {any} */ f) => f.text === text && f.off === off)) {
    state.forks.push({ name, text, off, request });
    state.fork = state.forks.length - 1;
  }
  listForks();
}

function listForks() {
  $("forks").replaceChildren(...state.forks.map((/** @type {any} */ f, /** @type {number} */ i) => {
    const button = make("button", { type: "button", textContent: f.name });
    button.setAttribute("aria-current", String(i === state.fork));
    button.onclick = () => {
      state.fork = i;
      state.off = new Set(f.request.off);
      write(f.request);
      drawHeads();
    };
    return make("li", {}, button);
  }));
}

/** Choose a word. @param {number} pos */
function choose(pos) {
  if (!state.tokens[pos]) return;
  state.chosen = pos;
  for (const node of $("story").querySelectorAll(".tok")) {
    const here = +node.dataset.pos === pos;
    node.classList.toggle("chosen", here);
    node.setAttribute("aria-pressed", String(here));
    node.tabIndex = here ? 0 : -1;
  }
  drawHeads();
  drawArcs();
  drawBars();
  drawWay();
}

/** Attention weights of a head from the chosen word. @param {number} layer @param {number} head */
function weightsOf(layer, head) {
  const token = state.tokens[state.chosen];
  if (!token) return new Float32Array();
  const n = token.pos + 1, at = (layer * state.config.nHeads + head) * n;
  return token.att.subarray(at, at + n);
}

function drawArcs() {
  const box = $("story"), nodes = box.querySelectorAll(".tok");
  box.querySelector("svg")?.remove();
  nodes.forEach((/** @type {any} */ n) => { n.style.backgroundColor = ""; });
  const weights = weightsOf(state.head.layer, state.head.head), from = nodes[state.chosen];
  if (!from) return;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  const frame = box.getBoundingClientRect();
  /** @param {Element} node */
  const top = (node) => {
    const r = node.getClientRects()[0] ?? node.getBoundingClientRect();
    return [r.left + r.width / 2 - frame.left, r.top - frame.top];
  };
  const [x1, y1] = top(from);
  weights.forEach((/** @type {number} */ weight, /** @type {number} */ pos) => {
    if (weight < 0.02 || !nodes[pos]) return;
    nodes[pos].style.backgroundColor = `rgba(var(--glow), ${(0.65 * weight).toFixed(3)})`;
    if (pos === state.chosen) return;
    const [x2, y2] = top(nodes[pos]), lift = Math.min(y1, y2) - 10 - Math.abs(x1 - x2) / 12;
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `M ${x1} ${y1} C ${x1} ${lift}, ${x2} ${lift}, ${x2} ${y2}`);
    path.setAttribute("stroke-width", String(0.5 + 4 * weight));
    path.setAttribute("opacity", String(0.25 + 0.75 * weight));
    svg.append(path);
  });
  box.append(svg);
}

$("story").addEventListener("click", (/** @type {any} */ e) => {
  const pos = e.target.dataset?.pos;
  if (pos !== undefined) choose(+pos);
});
for (const kind of ["focusin", "mouseover"])
  $("story").addEventListener(kind, (/** @type {any} */ e) => {
    const pos = e.target.dataset?.pos;
    if (pos !== undefined && +pos !== state.chosen) choose(+pos);
  });
$("story").addEventListener("keydown", (/** @type {any} */ e) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[/** @type {"ArrowLeft"} */ (e.key)];
  if (!step || e.target.dataset?.pos === undefined) return;
  e.preventDefault();
  $("story").querySelector(`[data-pos="${+e.target.dataset.pos + step}"]`)?.focus();
});

// ---- heads

function buildHeads() {
  const { nLayers, nHeads } = state.config;
  $("heads").replaceChildren();
  $("heads-title").textContent = `${nLayers * nHeads} attention heads`;
  for (let layer = 0; layer < nLayers; layer++) {
    const row = make("div", { className: "row" }, make("span", { textContent: `layer ${layer}` }));
    row.style.gridTemplateColumns = `3.2rem repeat(${nHeads}, minmax(30px, 1fr))`;
    for (let head = 0; head < nHeads; head++) {
      const button = make("button", { type: "button", className: "head", textContent: String(head) });
      button.dataset.layer = String(layer);
      button.dataset.head = String(head);
      button.setAttribute("aria-label", `layer ${layer}, head ${head}`);
      const look = () => { state.head = { layer, head }; drawHeads(); drawArcs(); };
      button.onfocus = button.onmouseenter = look;
      button.onclick = () => { look(); toggle(`${layer}.${head}`); };
      row.append(button);
    }
    $("heads").append(row);
  }
}

/** Switch a head off, or on again. @param {string} name */
function toggle(name) {
  if (!state.off.delete(name)) state.off.add(name);
  rewrite();
}

function rewrite() {
  const n = state.off.size;
  state.compare = n ? "Before, with more heads" : "Before, with heads switched off";
  drawHeads();
  write({ ...state.request, off: [...state.off].sort(), keep: state.chosen });
}

function drawHeads() {
  $("all-on").disabled = !state.off.size;
  for (const button of $("heads").querySelectorAll(".head")) {
    const layer = +button.dataset.layer, head = +button.dataset.head;
    const weights = weightsOf(layer, head);
    let most = 0;
    weights.forEach((/** @type {number} */ w, /** @type {number} */ i) => { if (i) most = Math.max(most, w); });
    button.style.backgroundColor = `rgba(var(--glow), ${(0.05 + 0.5 * most).toFixed(2)})`;
    button.setAttribute("aria-pressed", String(state.off.has(`${layer}.${head}`)));
    button.classList.toggle("chosen", layer === state.head.layer && head === state.head.head);
  }
  const { layer, head } = state.head, weights = [...weightsOf(layer, head)];
  if (!weights.length) return;
  const best = weights.indexOf(Math.max(...weights)), seen = state.tokens[best];
  const off = state.off.has(`${layer}.${head}`) ? " It is switched off." : "";
  $("head-says").textContent = `Layer ${layer}, head ${head}: from “${
    label(state.tokens[state.chosen].id)}”, ${Math.round(100 * weights[best])} % of its attention is on “${
    label(seen.id)}”.${off}`;
}

$("all-on").onclick = () => { state.off.clear(); rewrite(); };

// ---- the next token

function drawBars() {
  const token = state.tokens[state.chosen];
  if (!token) return;
  const T = +$("temperature").value, topP = +$("top-p").value, { logits } = token;
  const top = Math.max(...logits);
  const p = Array.from(logits, (x) => Math.exp((x - top) / (T || 1)));
  const sum = p.reduce((a, b) => a + b);
  const order = [...p.keys()].sort((a, b) => p[b] - p[a]);
  let cumulative = 0, kept = 0;
  for (; kept < order.length && (T ? cumulative <= topP : kept < 1); kept++)
    cumulative += p[order[kept]] / sum;
  $("bars").replaceChildren(...order.slice(0, SHOWN).map((id, rank) => {
    const share = p[id] / sum, length = make("span", { className: "length" });
    length.style.width = `${100 * share / (p[order[0]] / sum)}%`;
    const bar = make("button", { type: "button", className: "bar" },
      make("span", { className: "name", textContent: label(id) }), length,
      make("span", { className: "share", textContent: `${(100 * share).toFixed(1)} %` }));
    if (rank >= kept) bar.classList.add("out");
    bar.setAttribute("aria-label", `${label(id)}, ${(100 * share).toFixed(1)} percent${
      rank < kept ? "" : ", left out by top-p"}`);
    bar.onclick = () => fork(id);
    return bar;
  }));
}

/** Go on from the chosen word with another token. @param {number} id */
function fork(id) {
  const ids = state.tokens.slice(0, state.chosen + 1).map((/** @type {any} */ t) => t.id);
  state.compare = "Before";
  write({ ...state.request, ids: [...ids, id], keep: state.chosen + 1 });
}

for (const name of ["temperature", "top-p"])
  $(name).oninput = () => {
    $(`${name}-value`).textContent = $(name).value;
    drawBars();
    remember();
  };
for (const name of ["temperature", "top-p", "seed"])
  $(name).onchange = () => {
    state.compare = "Before, with other settings";
    write({
      ...state.request, temperature: +$("temperature").value, topP: +$("top-p").value,
      seed: Math.max(1, Math.floor(+$("seed").value || 1)), keep: state.chosen,
    });
  };

// ---- the way of a token

function drawWay() {
  const token = state.tokens[state.chosen];
  if (!token) return;
  const rows = token.lens.map((/** @type {any} */ guess, /** @type {number} */ i) => {
    const name = i ? `block ${i - 1}` : "embedding";
    const chapter = i ? "07_transformer" : "04_ops";
    return make("li", {}, make("a", { href: `../${chapter}.html`, textContent: name }),
      make("span", { className: "name", textContent: label(guess.id) }),
      make("span", { textContent: `${Math.round(100 * guess.p)} %` }));
  });
  $("way").replaceChildren(...rows);
}

// ---- the tour

const COMMA = 11, BEN = 7;
/** @type {[string, () => void][]} */
const TOUR = [
  ["The model has read “Once there was a boy named Ben. One day,” and goes on by itself, one token at a time.",
    () => { begin(); choose(COMMA); }],
  ["Look at the comma. From there the model must guess the next word, and it is sure of “Ben”. How does it know?",
    () => { choose(COMMA); $("bars").scrollIntoView({ block: "nearest" }); }],
  ["This head, number 7 of layer 4, puts nearly all of its attention on “Ben”. Head 3 does the same.",
    () => { state.head = { layer: 4, head: 7 }; choose(COMMA); $("story").scrollIntoView({ block: "nearest" }); }],
  ["Now both are switched off, and the model writes again. The hero has lost his name.",
    () => { state.off = new Set(["4.3", "4.7"]); rewrite(); }],
  ["Two of forty heads carry the name. Now it is your turn: choose a word, switch off a head, or press a bar.",
    () => {}],
];
let step = -1, timer = 0;

function begin() {
  $("prompt").value = EXAMPLES[0];
  $("temperature").value = "0";
  $("temperature-value").textContent = "0";
  state.off.clear();
  state.tokens = [];
  write({ keep: COMMA });
}

function next() {
  clearTimeout(timer);
  step += 1;
  if (step >= TOUR.length) return end();
  const [text, act] = TOUR[step];
  $("caption").hidden = false;
  $("caption-text").textContent = text;
  $("caption-next").textContent = step + 1 < TOUR.length ? "Next" : "Done";
  act();
  if (step + 1 < TOUR.length) timer = setTimeout(next, 7000);
}

function end() {
  clearTimeout(timer);
  step = -1;
  $("caption").hidden = true;
  $("tour").focus();
}

$("tour").onclick = () => { step = -1; next(); $("caption-next").focus(); };
$("caption-next").onclick = next;
$("caption-end").onclick = end;

// ---- the address: a link gives the same text again

function remember() {
  const { request } = state;
  if (!request) return;
  const parameters = new URLSearchParams({
    prompt: request.prompt, t: String(request.temperature), p: String(request.topP),
    seed: String(request.seed),
  });
  if (request.off.length) parameters.set("off", request.off.join(","));
  if (request.ids) parameters.set("ids", request.ids.join("-"));
  history.replaceState(null, "", `#${parameters}`);
}

function restore() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, key] of [["prompt", "prompt"], ["temperature", "t"], ["top-p", "p"], ["seed", "seed"]]) {
    const value = given.get(key);
    if (value !== null) $(name).value = value;
  }
  $("temperature-value").textContent = $("temperature").value;
  $("top-p-value").textContent = $("top-p").value;
  const { nLayers, nHeads, vocabSize } = state.config;
  const off = (given.get("off") ?? "").split(",").filter((name) => {
    const [layer, head, rest] = name.split(".").map(Number);
    return rest === undefined && layer >= 0 && layer < nLayers && head >= 0 && head < nHeads;
  });
  const ids = (given.get("ids") ?? "").split("-").map(Number);
  const known = ids.length > 1 && ids[0] === 1 && ids.every((id) => id > 0 && id < vocabSize);
  state.off = new Set(off);
  write(known ? { ids } : {});
}

// ---- a model of one's own

$("file").onchange = async () => {
  const files = [...$("file").files], words = files.find((f) => /^tok/i.test(f.name));
  const model = files.find((f) => f !== words);
  if (!model || !words) return say("Choose two files: the model and its tokenizer (tokenizer.bin).", true);
  state.ready = false;
  say(`${model.name} is being read …`);
  state.off.clear();
  history.replaceState(null, "", "#");
  const buffers = [await model.arrayBuffer(), await words.arrayBuffer()];
  worker.postMessage({ type: "open", model: buffers[0], vocabulary: buffers[1] }, buffers);
};

// ---- start

$("prompt-form").onsubmit = (/** @type {Event} */ e) => {
  e.preventDefault();
  state.compare = "";
  write();
};
$("examples").append(...EXAMPLES.slice(1).map((text) => {
  const button = make("button", { type: "button", textContent: text });
  button.onclick = () => { $("prompt").value = text; write(); };
  return button;
}));
addEventListener("resize", drawArcs);
if (location.protocol === "file:")
  say("Opened as a file, a browser lets no page load a model. Serve the folder: python -m http.server", true);
else worker.postMessage({
  type: "open", model: new URL(MODEL, location.href).href,
  vocabulary: new URL(VOCABULARY, location.href).href,
});
