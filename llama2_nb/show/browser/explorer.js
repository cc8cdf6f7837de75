// @ts-check
// The live view of a Llama: one story, one prompt, everything linked. Who computes is somebody
// else's matter: an engine takes messages (open, write, stop) and gives messages (ready, token, end,
// error). The site has one in a worker (page.js), a notebook has one in its kernel (54_explorer).

const SHOWN = 10; // bars
const EXAMPLES = [ // of the bundled model
  "Once there was a boy named Ben. One day,",
  "Lily had a red kite. Lily",
  "Tom and the dog went to the",
  "Once upon a time",
];
const COMMA = 11; // the position in the first example from which the name is looked up
const PACE = 30; // ms between two written tokens, so that one can watch
const SVG = "http://www.w3.org/2000/svg";

/**
 * @typedef {object} Engine
 * @property {(message: any) => void} post
 * @property {(receive: (message: any) => void) => void} listen
 */
/**
 * @typedef {object} Options
 * @property {string} [site] where the chapters are, with a slash at the end
 * @property {boolean} [bundled] whether it is the bundled model, which examples and tour are made for
 * @property {boolean} [address] whether the page's address holds what is shown
 * @property {string} [prompt] @property {number} [steps] positions to use; 0: all
 */
/**
 * What the engine said of one position.
 * @typedef {object} Token
 * @property {number} pos @property {number} id @property {string} text
 * @property {boolean} given whether it is of the prompt
 * @property {Float32Array} att attention weights: layer, head, position up to this one
 * @property {Float32Array} logits of the next token
 * @property {{id: number, p: number}[]} lens the best guess after the embedding and each block
 */

/** @param {string} tag @param {object} [properties] @param {...(Node | string)} children */
function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** @param {number} share from 0 to 1 @param {number} [digits] */
const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;

export class Explorer {
  /**
   * @param {Document | ShadowRoot} root what holds the markup of index.html
   * @param {Engine} engine @param {Options} [options]
   */
  constructor(root, engine, options = {}) {
    this.root = root;
    this.engine = engine;
    this.options = { site: "../", bundled: true, address: false, steps: 0, ...options };
    /** @type {any} */ this.config = null;
    /** @type {string[]} */ this.pieces = [];
    this.bos = 1;
    this.ready = false;
    this.run = 0;
    /** @type {Token[]} */ this.tokens = [];
    this.chosen = -1; // position
    this.keep = -1; // the position that stays chosen while the text is written again
    this.head = { layer: 4, head: 7 };
    /** @type {Set<string>} heads that are off, as "layer.head" */ this.off = new Set();
    /** @type {any} what is written now */ this.request = null;
    /** @type {any[]} versions of the story */ this.versions = [];
    this.version = -1; // the one that is shown
    this.compare = ""; // the heading of the text before, where it is shown
    /** @type {Token[]} the last text that was written to its end */ this.whole = [];
    /** @type {any[]} messages that are not shown yet */ this.queue = [];
    this.pacer = 0;
    this.step = -1; // of the tour
    this.timer = 0;
    this.pointer = "";
    this.moved = false;
    this.bind();
    engine.listen((message) => this.receive(message));
  }

  /** @param {string} id @returns {any} */
  $(id) { return this.root.getElementById(id); }

  /** @param {string} text @param {boolean} [bad] */
  say(text, bad = false) {
    this.$("status").textContent = text;
    this.$("status").classList.toggle("bad", bad);
  }

  /**
   * A token as a label: a word as it is, the rest of a word after three dots.
   * @param {number} id
   */
  label(id) {
    if (id === this.bos) return "start";
    const piece = (this.pieces[id] ?? `<${id}>`).replace("<0x0A>", "line end").replace(/\n/g, "↵");
    if (piece.startsWith(" ")) return piece.trim() || "space";
    return /^\p{L}/u.test(piece) && piece !== "line end" ? `…${piece}` : piece;
  }

  // ---- controls

  bind() {
    const { options } = this;
    for (const link of this.root.querySelectorAll("main a[href^='../']"))
      /** @type {any} */ (link).href = options.site + link.getAttribute("href")?.slice(3);
    if (options.prompt !== undefined) this.$("prompt").value = options.prompt;
    this.$("prompt-form").onsubmit = (/** @type {Event} */ e) => {
      e.preventDefault();
      if (!this.ready) return this.say("The model is still loading. Please wait a moment.");
      this.compare = "";
      this.version = -1;
      this.write();
    };
    this.$("tour").hidden = this.$("examples").parentNode.hidden = !options.bundled;
    this.$("examples").replaceChildren(...EXAMPLES.slice(1).map((text) => {
      const button = make("button", { type: "button", textContent: text });
      button.onclick = () => {
        this.$("prompt").value = text;
        this.$("prompt-form").requestSubmit();
      };
      return button;
    }));
    for (const name of ["temperature", "top-p"])
      this.$(name).oninput = () => {
        this.$(`${name}-value`).textContent = this.$(name).value;
        this.drawBars();
      };
    for (const name of ["temperature", "top-p", "seed"])
      this.$(name).onchange = () => {
        this.compare = "Before, with other settings";
        this.write({ ...this.request, ...this.settings(), keep: this.chosen });
      };
    this.$("all-on").onclick = () => { this.off.clear(); this.rewrite(); };
    this.$("tour").onclick = () => { this.step = -1; this.next(); this.$("caption-next").focus(); };
    this.$("caption-next").onclick = () => this.next();
    this.$("caption-end").onclick = () => this.end();
    this.bindStory();
    addEventListener("resize", () => this.drawArcs());
    // a browser also reports a move when the page moves below the pointer: that is no choice
    addEventListener("mousemove", ({ clientX, clientY }) => {
      this.moved = this.pointer !== `${clientX} ${clientY}`;
      this.pointer = `${clientX} ${clientY}`;
    }, { capture: true });
  }

  bindStory() {
    const story = this.$("story");
    const pos = (/** @type {any} */ e) => e.target.dataset?.pos;
    story.addEventListener("click", (/** @type {any} */ e) => {
      if (pos(e) !== undefined) this.choose(+pos(e));
    });
    for (const kind of ["focusin", "mousemove"])
      story.addEventListener(kind, (/** @type {any} */ e) => {
        if ((e.type === "focusin" || this.moved) && pos(e) !== undefined && +pos(e) !== this.chosen) this.choose(+pos(e));
      });
    story.addEventListener("keydown", (/** @type {any} */ e) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[/** @type {"ArrowLeft"} */ (e.key)];
      if (!step || pos(e) === undefined) return;
      e.preventDefault();
      story.querySelector(`[data-pos="${+pos(e) + step}"]`)?.focus();
    });
  }

  // ---- asking the engine

  settings() {
    return {
      temperature: +this.$("temperature").value, topP: +this.$("top-p").value,
      seed: Math.max(1, Math.floor(+this.$("seed").value || 1)),
    };
  }

  /** @param {any} [change] of the request: prompt, ids or what else */
  write(change = {}) {
    if (!this.ready) return;
    const { keep = -1, ...rest } = change;
    const request = {
      prompt: this.$("prompt").value, ids: null, ...this.settings(),
      off: [...this.off].sort(), steps: this.options.steps, ...rest,
    };
    this.request = request;
    this.tokens = [];
    this.keep = keep;
    // the page below must not jump while the text is written again
    this.$("story").style.minHeight = `${this.$("story").offsetHeight}px`;
    this.$("story").replaceChildren();
    this.$("other").hidden = true;
    this.$("without").textContent = request.off.length ? `Written without ${this.named(request.off)}.` : "";
    this.queue = [];
    clearTimeout(this.pacer);
    this.pacer = 0;
    this.say("The model is writing …");
    this.engine.post({ type: "write", ...request, run: ++this.run });
    this.remember();
  }

  /** @param {any} message */
  receive(message) {
    const { type } = message;
    if (type === "error") return this.say(message.message, true);
    if (type === "opening" || type === "ready") {
      if (type === "opening" && this.ready) return; // the model was faster
      this.config = message.config;
      this.pieces = message.pieces;
      this.bos = message.bos;
      this.head.layer = Math.min(this.head.layer, this.config.nLayers - 1);
      this.head.head = Math.min(this.head.head, this.config.nHeads - 1);
      this.buildHeads();
    }
    if (type === "opening") return this.replay(message.tokens);
    if (type === "ready") {
      this.ready = true;
      this.say(`The model has loaded (${(message.bytes / 1e6).toFixed(1)} MB).`);
      return this.restore();
    }
    if (message.run !== this.run) return;
    this.queue.push(message);
    if (!this.pacer) this.drain();
  }

  /** Show what has come: the prompt at once, what the model writes one by one. */
  drain() {
    this.pacer = 0;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    while (this.queue.length) {
      const message = this.queue.shift();
      if (message.type === "end") return this.ended(message);
      this.show(message);
      if (message.given || still) continue;
      this.pacer = setTimeout(() => this.drain(), PACE);
      return;
    }
  }

  /** @param {any} message what the engine says at the end of a text */
  ended(message) {
    const speed = Math.round(message.tokens / message.seconds);
    this.say(`${message.story ? "The model ended the story" : "The text may not grow further"} after `
      + `${message.tokens} tokens (computed at ${speed} tokens a second).`);
    this.$("announce").textContent = this.text();
    this.finish();
  }

  /** Heads by name. @param {string[]} off each "layer.head" */
  named(off) {
    return off.map((name) => `head ${name.split(".")[1]} of layer ${name.split(".")[0]}`).join(" and ");
  }

  /** What is shown before the model is here. @param {Token[]} tokens */
  replay(tokens) {
    this.$("story").replaceChildren();
    this.keep = tokens.filter((t) => t.given).length - 1;
    for (const token of tokens) this.show(token);
  }

  // ---- the story

  text(tokens = this.tokens) { return tokens.map((t) => t.text).join(""); }

  /** A new token has come. @param {Token} token */
  show(token) {
    const first = token.pos === 0 && !token.text; // the token that begins a text
    this.tokens.push(token);
    // spans, since a line may break between a button's neighbours, but not within a word
    const node = make("span", { className: "tok", textContent: first ? "start" : token.text });
    node.setAttribute("role", "button");
    node.tabIndex = -1; // one of all words takes the focus: the chosen one
    if (!token.given) node.classList.add("written");
    if (first) node.classList.add("bos");
    node.dataset.pos = String(token.pos);
    node.setAttribute("aria-label", `word ${token.pos}: ${this.label(token.id)}`);
    this.$("story").append(node);
    this.$("cache").max = this.config.seqLen;
    this.$("cache").value = token.pos + 1;
    this.$("cache-says").textContent =
      `${token.pos + 1} of ${this.config.seqLen} places are taken.`;
    if (this.keep >= 0 ? token.pos === this.keep : token.given) this.choose(token.pos);
  }

  finish() {
    const { request, whole: before, tokens } = this;
    this.$("story").style.minHeight = "";
    this.whole = tokens;
    if (before.length && this.compare) {
      let same = 0;
      while (same < before.length && before[same].id === tokens[same]?.id) same += 1;
      this.$("other").hidden = false;
      this.$("other-title").textContent = this.compare;
      this.$("other-text").replaceChildren(this.text(before.slice(0, same)),
        make("em", { textContent: this.text(before.slice(same)) }));
    }
    this.compare = "";
    if (this.chosen >= this.tokens.length || this.chosen < 0) this.choose(this.tokens.length - 1);
    else this.drawArcs(); // words may have moved
    const ids = this.tokens.map((t) => t.id), off = request.off.join(", ");
    const same = this.versions.findIndex((v) => v.off === off && String(v.ids) === String(ids));
    if (same >= 0) this.version = same;
    else {
      const parent = this.versions[this.version];
      let at = 0;
      while (parent && at < ids.length && parent.ids[at] === ids[at]) at += 1;
      const texts = this.tokens.map((t) => t.text);
      const from = parent ? this.version : -1;
      const why = parent ? this.reason(request, parent) : "";
      this.versions.push({ ids, texts, off, request, at, from, why });
      this.version = this.versions.length - 1;
    }
    this.drawVersions();
  }

  /** What made a version differ from the one it was made of. @param {any} request @param {any} parent */
  reason(request, parent) {
    const { off } = request, old = parent.request;
    if (String(off) !== String(old.off))
      return off.length ? `without ${this.named(off)}` : "all heads on";
    if (request.ids && String(request.ids) !== String(old.ids)) {
      const at = request.ids.length - 1;
      return `“${this.label(request.ids[at])}” instead of “${
        at < parent.ids.length ? this.label(parent.ids[at]) : "the end"}”`;
    }
    return `temperature ${request.temperature}, top-p ${request.topP}, seed ${request.seed}`;
  }

  drawVersions() {
    /** @param {number} from @returns {Node[]} */
    const branch = (from) => this.versions.flatMap((version, i) => {
      if (version.from !== from) return [];
      const rest = version.texts.slice(Math.max(0, version.at - 1)).join("").trim();
      const button = make("button", { type: "button" },
        ...(version.why ? [make("strong", { textContent: version.why }), make("br")] : []),
        `${version.at ? "… " : ""}${rest.slice(0, 70)}${rest.length > 70 ? " …" : ""}`);
      button.setAttribute("aria-current", String(i === this.version));
      button.onclick = () => {
        this.version = i;
        this.off = new Set(version.request.off);
        this.write({ ...version.request, keep: this.chosen });
      };
      const children = branch(i);
      return [make("li", {}, button, ...(children.length ? [make("ul", {}, ...children)] : []))];
    });
    this.$("versions").replaceChildren(...branch(-1));
  }

  /** Choose a word. @param {number} pos */
  choose(pos) {
    if (!this.tokens[pos]) return;
    this.chosen = pos;
    for (const node of this.$("story").querySelectorAll(".tok")) {
      const here = +node.dataset.pos === pos;
      node.classList.toggle("chosen", here);
      node.setAttribute("aria-pressed", String(here));
      node.tabIndex = here ? 0 : -1;
    }
    this.drawHeads();
    this.drawArcs();
    this.drawBars();
    this.drawWay();
  }

  /** Attention weights of a head from the chosen word. @param {number} layer @param {number} head */
  weightsOf(layer, head) {
    const token = this.tokens[this.chosen];
    if (!token) return new Float32Array();
    const n = token.pos + 1, at = (layer * this.config.nHeads + head) * n;
    return token.att.subarray(at, at + n);
  }

  /** @param {number} layer @param {number} head */
  isOff(layer, head) { return this.request?.off.includes(`${layer}.${head}`) ?? false; }

  drawArcs() {
    const box = this.$("story"), nodes = box.querySelectorAll(".tok");
    box.querySelector("svg")?.remove();
    nodes.forEach((/** @type {any} */ n) => n.style.removeProperty("--weight"));
    const weights = this.weightsOf(this.head.layer, this.head.head), from = nodes[this.chosen];
    if (!from) return;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("aria-hidden", "true");
    const frame = box.getBoundingClientRect();
    /** @param {Element} node */
    const top = (node) => {
      // a token that begins with a space may have that space at the end of the line before
      const parts = [...node.getClientRects()].sort((a, b) => b.width - a.width);
      const r = parts[0] ?? node.getBoundingClientRect();
      return [r.left + r.width / 2 - frame.left, r.top - frame.top];
    };
    const [x1, y1] = top(from), off = this.isOff(this.head.layer, this.head.head);
    svg.classList.toggle("off", off);
    weights.forEach((weight, pos) => {
      if (weight < 0.02 || !nodes[pos]) return;
      if (!off) nodes[pos].style.setProperty("--weight", percent(0.65 * weight, 1).replace(" ", ""));
      if (pos === this.chosen) return;
      const [x2, y2] = top(nodes[pos]), lift = Math.min(y1, y2) - 10 - Math.abs(x1 - x2) / 12;
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("d", `M ${x1} ${y1} C ${x1} ${lift}, ${x2} ${lift}, ${x2} ${y2}`);
      path.setAttribute("stroke-width", String(0.5 + 4 * weight));
      path.setAttribute("opacity", String(0.25 + 0.75 * weight));
      svg.append(path);
    });
    box.append(svg);
  }

  // ---- heads

  buildHeads() {
    const { nLayers, nHeads } = this.config;
    this.$("heads").replaceChildren();
    this.$("heads-title").textContent = `${nLayers * nHeads} attention heads`;
    this.$("heads-shape").textContent = `This model has ${nLayers} layers of ${nHeads} heads; a token goes through layer 0 first.`;
    for (let layer = 0; layer < nLayers; layer++) {
      const row = make("div", { className: "row" }, make("span", { textContent: `layer ${layer}` }));
      row.style.gridTemplateColumns = `max-content repeat(${nHeads}, minmax(24px, 1fr))`;
      for (let head = 0; head < nHeads; head++) {
        const button = make("button", { type: "button", className: "head", textContent: String(head) });
        button.dataset.layer = String(layer);
        button.dataset.head = String(head);
        button.setAttribute("aria-label", `layer ${layer}, head ${head}`);
        const look = () => { this.head = { layer, head }; this.drawHeads(); this.drawArcs(); };
        button.onfocus = look;
        button.onmousemove = () => {
          const { head: now } = this;
          if (this.moved && (now.layer !== layer || now.head !== head)) look();
        };
        // a finger can't point: its first touch looks, the next one switches
        let known = false;
        button.onpointerdown = (/** @type {PointerEvent} */ e) => {
          known = e.pointerType !== "touch" || button.classList.contains("chosen");
        };
        button.onclick = (/** @type {MouseEvent} */ e) => {
          look();
          if (known || !e.detail) this.toggle(`${layer}.${head}`); // no detail: by keyboard
        };
        row.append(button);
      }
      this.$("heads").append(row);
    }
  }

  /** Switch a head off, or on again. @param {string} name */
  toggle(name) {
    if (!this.ready) return this.say("The model is still loading. Please wait a moment.");
    if (!this.off.delete(name)) this.off.add(name);
    this.rewrite();
  }

  /** With the heads that are off now. */
  rewrite() {
    const before = this.request.off;
    this.compare = before.length ? `Before, without ${this.named(before)}` : "Before, with all heads on";
    this.write({ ...this.request, off: [...this.off].sort(), keep: this.chosen });
    this.drawHeads();
  }

  drawHeads() {
    this.$("all-on").hidden = !this.off.size;
    for (const button of this.$("heads").querySelectorAll(".head")) {
      const layer = +button.dataset.layer, head = +button.dataset.head;
      const most = Math.max(0, ...this.weightsOf(layer, head).subarray(1));
      button.style.setProperty("--weight", percent(0.05 + 0.5 * most, 1).replace(" ", ""));
      button.setAttribute("aria-pressed", String(this.off.has(`${layer}.${head}`)));
      button.classList.toggle("chosen", layer === this.head.layer && head === this.head.head);
    }
    const { layer, head } = this.head, weights = [...this.weightsOf(layer, head)];
    if (!weights.length) return;
    const best = weights.indexOf(Math.max(...weights));
    const [from, to] = [this.chosen, best].map((pos) => this.label(this.tokens[pos].id));
    const share = percent(weights[best]);
    this.$("head-says").textContent = this.isOff(layer, head)
      ? `Head ${head} of layer ${layer} is switched off. It would look from “${from}” at “${to}”, but what it finds is not used.`
      : `Head ${head} of layer ${layer} looks from “${from}” at “${to}” with ${share} of its attention.`;
  }

  // ---- the next token

  drawBars() {
    const token = this.tokens[this.chosen];
    if (!token) return;
    const { temperature, topP } = this.settings(), { logits } = token;
    let top = -Infinity;
    for (const logit of logits) top = Math.max(top, logit);
    const p = Float64Array.from(logits, (x) => Math.exp((x - top) / (temperature || 1)));
    const sum = p.reduce((a, b) => a + b);
    const order = [...p.keys()].sort((a, b) => p[b] - p[a]);
    let cumulative = 0, kept = 0;
    for (; kept < order.length && (temperature ? cumulative <= topP : kept < 1); kept++)
      cumulative += p[order[kept]] / sum;
    const shown = order.slice(0, SHOWN).filter((id, rank) => rank < 4 || p[id] / sum >= 5e-4);
    const before = this.text(this.tokens.slice(Math.max(0, this.chosen - 2), this.chosen + 1)).trim();
    this.$("next-title").textContent = `What comes after “${this.chosen > 2 ? "…" : ""}${before || "start"}”?`;
    this.$("bars").replaceChildren(...shown.map((id, rank) => {
      const share = p[id] / sum, length = make("span", { className: "length" });
      length.style.width = `${100 * share}%`;
      const bar = make("button", { type: "button", className: "bar" },
        make("span", { className: "name", textContent: this.label(id) }), length,
        make("span", { className: "share", textContent: percent(share, 1) }));
      if (rank >= kept) bar.classList.add("out");
      bar.setAttribute("aria-label", `${this.label(id)}, ${(100 * share).toFixed(1)} percent${
        rank < kept ? "" : ", left out by top-p"}`);
      bar.onclick = () => this.fork(id);
      return bar;
    }));
    this.$("kept").textContent = temperature
      ? `Top-p keeps ${kept === 1 ? "1 token" : `${kept} tokens`} of ${p.length}; one of them is drawn.`
      : "";
  }

  /** Go on from the chosen word with another token. @param {number} id */
  fork(id) {
    if (!this.ready) return this.say("The model is still loading. Please wait a moment.");
    const ids = this.tokens.slice(0, this.chosen + 1).map((t) => t.id);
    this.compare = "Before";
    this.write({ ...this.request, ids: [...ids, id], keep: this.chosen + 1 });
  }

  // ---- the way of a token

  drawWay() {
    const token = this.tokens[this.chosen];
    if (!token) return;
    const { site } = this.options, { nLayers, dim } = this.config;
    /** @param {string} chapter @param {string} station @param {string} says @param {string} much */
    const row = (chapter, station, says, much) => make("li", {},
      make("a", { href: `${site}${chapter}.html`, textContent: station }),
      make("span", { className: "name", textContent: says }), make("span", { textContent: much }));
    const guess = token.lens.map((g) => [this.label(g.id), percent(g.p)]);
    this.$("way").replaceChildren(
      row("03_tokenizer", "token", this.label(token.id), `id ${token.id}`),
      row("04_ops", "embedding", guess[0][0], guess[0][1]),
      ...guess.slice(1).map(([name, p], i) => row("07_transformer", `layer ${i}`, name, p)),
      row("08_sampling", "logits", `${token.logits.length} numbers`, guess[nLayers][1]),
    );
    this.$("way-says").textContent =
      `On its way the token is a list of ${dim} numbers, to which each layer adds something.`;
  }

  // ---- the tour

  /** Text, what is lit, what is done. @returns {[string, string[], () => void][]} */
  tour() {
    return [
      ["The model reads “Once there was a boy named Ben. One day,” and writes on, one token at a time. A token is a word, or a part of one.",
        ["story"], () => { this.begin(); this.into("story"); }],
      ["From the comma, framed above, it must guess the next token. These are its best guesses: it is rather sure of “Ben”. How does it know?",
        ["bars"], () => { this.choose(COMMA); this.into("story"); this.$("bars").scrollIntoView({ block: "nearest" }); }],
      ["A head looks back at earlier tokens. Head 7 of layer 4 looks from the comma at “Ben”, and head 3 of that layer does the same.",
        ["story", "heads"], () => { this.head = { layer: 4, head: 7 }; this.choose(COMMA); this.into("story"); }],
      ["Now these two are switched off, and the model writes again. “Ben” is gone from its guesses, and from the story after “One day,”.",
        ["story", "bars"], () => { this.off = new Set(["4.3", "4.7"]); this.rewrite(); this.into("story"); this.$("bars").scrollIntoView({ block: "nearest" }); }],
      ["These two heads fetch the name; the others have other tasks. “Switch all heads on” brings Ben back. Now it is your turn: choose a word, switch off a head, or press one of the guesses.",
        ["heads"], () => {}],
    ];
  }

  /** Frame the sections that are talked about. @param {string[]} ids */
  light(ids) {
    for (const section of this.root.querySelectorAll("section")) section.classList.remove("lit");
    for (const id of ids) this.$(id).closest("section").classList.add("lit");
  }

  /** @param {string} id */
  into(id) { this.$(id).closest("section").scrollIntoView({ block: "start" }); }

  /** The first example as it is at first. */
  begin() {
    this.$("prompt").value = EXAMPLES[0];
    this.$("temperature").value = "0";
    this.$("temperature-value").textContent = "0";
    this.off.clear();
    this.head = { layer: 4, head: 7 };
    this.tokens = [];
    this.compare = "";
    this.version = -1;
    this.write({ keep: COMMA });
  }

  next() {
    clearTimeout(this.timer);
    this.step += 1;
    const stations = this.tour(), last = stations.length - 1;
    if (this.step > last) return this.end();
    const [text, lit, act] = stations[this.step];
    this.$("caption").hidden = false;
    this.$("caption-step").textContent = `${this.step + 1} of ${last + 1}`;
    this.$("caption-text").textContent = text;
    this.$("caption-next").textContent = this.step < last ? "Next" : "Done";
    this.$("caption-end").hidden = this.step === last;
    act();
    this.light(lit);
    if (this.step < last) this.timer = setTimeout(() => this.next(), 8000);
  }

  end() {
    clearTimeout(this.timer);
    this.step = -1;
    this.light([]);
    this.$("caption").hidden = true;
    this.$("tour").focus();
  }

  // ---- the address: a link gives the same text again

  remember() {
    const { request } = this;
    if (!request || !this.options.address) return;
    const parameters = new URLSearchParams({
      prompt: request.prompt, t: String(request.temperature), p: String(request.topP),
      seed: String(request.seed),
    });
    if (request.off.length) parameters.set("off", request.off.join(","));
    if (request.ids) parameters.set("ids", request.ids.join("-"));
    history.replaceState(null, "", `#${parameters}`);
  }

  restore() {
    const given = new URLSearchParams(this.options.address ? location.hash.slice(1) : "");
    for (const [name, key] of [["prompt", "prompt"], ["temperature", "t"], ["top-p", "p"], ["seed", "seed"]]) {
      const value = given.get(key);
      if (value !== null) this.$(name).value = value;
    }
    this.$("temperature-value").textContent = this.$("temperature").value;
    this.$("top-p-value").textContent = this.$("top-p").value;
    const { nLayers, nHeads, vocabSize } = this.config;
    const isHead = (/** @type {string} */ name) => {
      const [layer, head, rest] = name.split(".").map(Number);
      return rest === undefined && layer >= 0 && layer < nLayers && head >= 0 && head < nHeads;
    };
    const ids = (given.get("ids") ?? "").split("-").map(Number);
    const known = ids.length > 1 && ids[0] === this.bos && ids.every((id) => id > 0 && id < vocabSize);
    this.off = new Set((given.get("off") ?? "").split(",").filter(isHead));
    const looks = given.get("head") ?? "", word = +(given.get("word") ?? -1);
    if (isHead(looks)) {
      const [layer, head] = looks.split(".").map(Number);
      this.head = { layer, head };
    }
    this.write({ ...(known ? { ids } : {}), keep: word >= 0 ? word : this.chosen });
    const station = { story: "story", next: "bars", heads: "heads", way: "way" }[
      /** @type {"story"} */ (given.get("at") ?? "")];
    if (station) this.$(station).closest("section").scrollIntoView();
  }
}

// ---- in a notebook: the kernel is the engine (anywidget calls this)

/** @param {any} model what Python shares @returns {Engine} */
function kernel(model) {
  const view = String(Math.random()); // a widget may be shown in several places
  return {
    post: (message) => model.send({ ...message, view }),
    listen: (receive) => model.on("msg:custom", (/** @type {any} */ content, /** @type {DataView[]} */ buffers) => {
      const { arrays = [], ...message } = content;
      if (message.view !== view) return;
      arrays.forEach((/** @type {string} */ name, /** @type {number} */ i) => {
        const { buffer, byteOffset, byteLength } = buffers[i];
        message[name] = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
      });
      receive(message);
    }),
  };
}

/** Follow JupyterLab's colours, which may differ from the system's. @param {HTMLElement} host */
function followTheme(host) {
  const follow = () => {
    const light = document.body.dataset.jpThemeLight;
    host.style.colorScheme = light ? (light === "true" ? "light" : "dark") : "";
  };
  const observer = new MutationObserver(follow);
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  follow();
  return () => observer.disconnect();
}

export default {
  /** @param {{model: any, el: HTMLElement}} view */
  render({ model, el }) {
    const root = el.attachShadow({ mode: "open" });
    // what is typed here is no command of the notebook's
    el.dataset.lmSuppressShortcuts = "true";
    root.addEventListener("keydown", (e) => e.stopPropagation());
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(model.get("styles"));
    root.adoptedStyleSheets = [sheet];
    root.innerHTML = model.get("markup"); // ours: a part of index.html
    const engine = kernel(model);
    new Explorer(root, engine, model.get("options"));
    engine.post({ type: "open" });
    return followTheme(el);
  },
};
