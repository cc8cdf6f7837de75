// @ts-check
// A Llama 2 in one file of JavaScript: no dependency, no network.
// Written by the chapter 53_browser; change it there.

/** What a file says that can't be used. */
export class CheckpointError extends Error {}

/**
 * @param {boolean} possible @param {string} what
 * @param {string} expected @param {unknown} found
 */
function need(possible, what, expected, found) {
  if (!possible)
    throw new CheckpointError(`${what}: expected ${expected}, found ${found}`);
}

/**
 * @typedef {object} Config
 * @property {number} dim width of the residual stream
 * @property {number} hiddenDim width inside the feed-forward network
 * @property {number} nLayers @property {number} nHeads @property {number} nKvHeads
 * @property {number} vocabSize @property {number} seqLen context length
 * @property {boolean} shared whether the classifier is the embedding table
 * @property {number} version 0, 1 or 2 (int8)
 * @property {number} groupSize int8 weights that share a scale
 * @property {number} start bytes before the first tensor
 * @property {number} headSize
 */

const MAGIC = 0x616b3432; // "ak42", at the beginning of versions 1 and 2
const GGUF = 0x46554747; // another format, which many models are found in
const FIELDS = [
  "dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len",
];

/** @param {ArrayBuffer} file @returns {Config} */
export function readHeader(file) {
  need(file.byteLength >= 28, "header", "28 bytes", file.byteLength);
  const view = new DataView(file);
  const sign = view.getUint32(0, true), later = sign === MAGIC;
  need(sign !== GGUF, "format", "a llama2.c checkpoint (.bin)", "GGUF");
  need(!later || file.byteLength >= 256, "header", "256 bytes", file.byteLength);
  const version = later ? view.getInt32(4, true) : 0;
  need(!later || version === 1 || version === 2, "version", "1 or 2", version);
  const numbers = FIELDS.map((_, i) => view.getInt32((later ? 8 : 0) + 4 * i, true));
  const shared = later ? view.getUint8(36) === 1 : numbers[5] > 0;
  if (!later) numbers[5] = Math.abs(numbers[5]);
  numbers.forEach((n, i) => need(n > 0, FIELDS[i], "a number from 1 up", n));
  const [dim, hiddenDim, nLayers, nHeads, nKvHeads, vocabSize, seqLen] = numbers;
  need(dim % nHeads === 0, "dim", `a multiple of n_heads (${nHeads})`, dim);
  const headSize = dim / nHeads;
  need(headSize % 2 === 0, "head_size", "an even number", headSize);
  const groups = `a multiple of n_kv_heads (${nKvHeads})`;
  need(nHeads % nKvHeads === 0, "n_heads", groups, nHeads);
  const groupSize = version === 2 ? view.getInt32(37, true) : 0;
  need(version < 2 || groupSize > 0, "group_size", "a number from 1 up", groupSize);
  const start = later ? 256 : 28;
  return {
    dim, hiddenDim, nLayers, nHeads, nKvHeads, vocabSize, seqLen,
    shared, version, groupSize, start, headSize,
  };
}

/**
 * A matrix, one row for each output.
 * @typedef {object} Matrix
 * @property {number} rows @property {number} columns
 * @property {Float32Array} [f] its numbers, row after row
 * @property {Int8Array} [q] or its int8 numbers ...
 * @property {Float32Array} [scales] ... and a scale for each group of them
 * @property {number} [group]
 */
/**
 * @typedef {object} Weights
 * @property {Matrix} embedding @property {Matrix} classifier
 * @property {Float32Array[]} attNorm @property {Float32Array[]} ffnNorm
 * @property {Float32Array} finalNorm
 * @property {Matrix[]} wq @property {Matrix[]} wk @property {Matrix[]} wv
 * @property {Matrix[]} wo @property {Matrix[]} w1 @property {Matrix[]} w2
 * @property {Matrix[]} w3
 */

/** @param {ArrayBuffer} file @param {Config} c @returns {Weights} */
export function sliceWeights(file, c) {
  const { dim, hiddenDim, nLayers, vocabSize, headSize, nKvHeads } = c;
  const kvDim = headSize * nKvHeads;
  let at = c.start;
  /** @param {number} n bytes */
  const take = (n) => {
    need(at + n <= file.byteLength, "file size", `at least ${at + n} bytes`,
      file.byteLength);
    at += n;
    return at - n;
  };
  /** @param {number} n @returns {Float32Array} */
  const floats = (n) => {
    const first = take(4 * n);
    // a view must begin at a multiple of 4; int8 groups of odd size may not leave one
    return first % 4 ? new Float32Array(file.slice(first, first + 4 * n))
      : new Float32Array(file, first, n);
  };
  /** @param {number} n @returns {Float32Array[]} one for each layer */
  const vectors = (n) => Array.from({ length: nLayers }, () => floats(n));
  /** @param {number} rows @param {number} columns @returns {Matrix} */
  const matrix = (rows, columns) => {
    if (c.version < 2) return { rows, columns, f: floats(rows * columns) };
    const n = rows * columns, group = c.groupSize;
    const q = new Int8Array(file, take(n), n);
    return { rows, columns, q, scales: floats(n / group), group };
  };
  /** @param {number} rows @param {number} columns @returns {Matrix[]} */
  const matrices = (rows, columns) =>
    Array.from({ length: nLayers }, () => matrix(rows, columns));

  const w = /** @type {Weights} */ ({});
  const parts = {
    embedding: () => { w.embedding = matrix(vocabSize, dim); },
    attNorm: () => { w.attNorm = vectors(dim); },
    ffnNorm: () => { w.ffnNorm = vectors(dim); },
    finalNorm: () => { w.finalNorm = floats(dim); },
    wq: () => { w.wq = matrices(dim, dim); },
    wk: () => { w.wk = matrices(kvDim, dim); },
    wv: () => { w.wv = matrices(kvDim, dim); },
    wo: () => { w.wo = matrices(dim, dim); },
    w1: () => { w.w1 = matrices(hiddenDim, dim); },
    w2: () => { w.w2 = matrices(dim, hiddenDim); },
    w3: () => { w.w3 = matrices(hiddenDim, dim); },
    skip: () => { take(4 * c.seqLen * headSize); }, // two old tables of RoPE
    classifier: () => {
      w.classifier = c.shared ? w.embedding : matrix(vocabSize, dim);
    },
  };
  const order = c.version === 0
    ? "embedding attNorm wq wk wv wo ffnNorm w1 w2 w3 finalNorm skip classifier"
    : "attNorm ffnNorm finalNorm embedding wq wk wv wo w1 w2 w3 classifier";
  for (const name of order.split(" ")) parts[/** @type {"wq"} */ (name)]();
  need(at === file.byteLength, "file size", `${at} bytes`, file.byteLength);
  return w;
}

/**
 * The dot product of x with each row of w.
 * @param {Float32Array} x (columns) @param {Matrix} w
 * @param {Float32Array} out (rows) @param {number} [offset] where x begins
 */
function linear(x, w, out, offset = 0) {
  const { rows, columns } = w;
  if (w.q) return linearInt8(x, w, out);
  const f = /** @type {Float32Array} */ (w.f);
  for (let row = 0, at = 0; row < rows; row++) {
    // four sums at once, so that no addition waits for the one before
    let a = 0, b = 0, c = 0, d = 0, i = 0;
    for (; i + 3 < columns; i += 4, at += 4) {
      a += f[at] * x[offset + i];
      b += f[at + 1] * x[offset + i + 1];
      c += f[at + 2] * x[offset + i + 2];
      d += f[at + 3] * x[offset + i + 3];
    }
    for (; i < columns; i++, at++) a += f[at] * x[offset + i];
    out[row] = a + b + (c + d);
  }
}

/**
 * x becomes int8 in groups, too, so that whole numbers are multiplied.
 * @param {Float32Array} x @param {Matrix} w @param {Float32Array} out
 */
function linearInt8(x, w, out) {
  const { rows, columns } = w;
  const q = /** @type {Int8Array} */ (w.q);
  const scales = /** @type {Float32Array} */ (w.scales);
  const group = /** @type {number} */ (w.group);
  if (columns % group) return linearMixed(x, w, out);
  const xq = new Int8Array(columns), xs = new Float32Array(columns / group);
  for (let g = 0; g < xs.length; g++) {
    let top = 0;
    for (let i = g * group; i < (g + 1) * group; i++)
      top = Math.max(top, Math.abs(x[i]));
    const scale = Math.fround(top / 127);
    if (!(scale >= 1.1754943508222875e-38)) continue; // zeros
    xs[g] = scale;
    for (let i = g * group; i < (g + 1) * group; i++) {
      const steps = Math.fround(x[i] / scale);
      xq[i] = Math.trunc(Math.fround(steps + (steps < 0 ? -HALF : HALF)));
    }
  }
  for (let row = 0, at = 0, s = 0; row < rows; row++) {
    let sum = 0;
    for (let g = 0; g < xs.length; g++, s++) {
      let whole = 0;
      for (let i = g * group; i < (g + 1) * group; i++, at++) whole += q[at] * xq[i];
      sum = Math.fround(sum + Math.fround(Math.fround(whole * scales[s]) * xs[g]));
    }
    out[row] = sum;
  }
}
const HALF = 0.4999999701976776; // the largest float32 below one half

/**
 * Where groups don't end with rows, x stays as it is.
 * @param {Float32Array} x @param {Matrix} w @param {Float32Array} out
 */
function linearMixed(x, w, out) {
  const row = new Float32Array(w.columns);
  for (let i = 0; i < w.rows; i++) {
    readRow(w, i, row);
    let sum = 0;
    for (let j = 0; j < w.columns; j++) sum += row[j] * x[j];
    out[i] = sum;
  }
}

/** @param {Matrix} w @param {number} row @param {Float32Array} out */
function readRow(w, row, out) {
  const first = row * w.columns;
  if (w.f) return out.set(w.f.subarray(first, first + w.columns));
  const q = /** @type {Int8Array} */ (w.q);
  const scales = /** @type {Float32Array} */ (w.scales);
  const group = /** @type {number} */ (w.group);
  for (let i = 0; i < w.columns; i++)
    out[i] = q[first + i] * scales[Math.floor((first + i) / group)];
}

/** A matrix in float32. @param {Matrix} w @returns {Matrix} */
function widen(w) {
  if (w.f) return w;
  const f = new Float32Array(w.rows * w.columns);
  for (let row = 0, n = w.columns; row < w.rows; row++)
    readRow(w, row, f.subarray(row * n, (row + 1) * n));
  return { rows: w.rows, columns: w.columns, f };
}

/** All matrices in float32. @param {Weights} w @returns {Weights} */
function widenAll(w) {
  const embedding = widen(w.embedding);
  const shared = w.classifier === w.embedding;
  const classifier = shared ? embedding : widen(w.classifier);
  const stacks = { wq: w.wq, wk: w.wk, wv: w.wv, wo: w.wo, w1: w.w1, w2: w.w2, w3: w.w3 };
  const wide = Object.entries(stacks).map(([name, stack]) => [name, stack.map(widen)]);
  return { ...w, embedding, classifier, ...Object.fromEntries(wide) };
}

/** @param {Float32Array} x @param {Float32Array} weight @param {Float32Array} out */
function rmsnorm(x, weight, out) {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] * x[i];
  const scale = 1 / Math.sqrt(sum / x.length + 1e-5);
  for (let i = 0; i < x.length; i++) out[i] = x[i] * scale * weight[i];
}

/** Scores become weights, in place. @param {Float32Array} x @param {number} n */
function softmax(x, n = x.length) {
  let top = -Infinity, sum = 0;
  for (let i = 0; i < n; i++) top = Math.max(top, x[i]);
  for (let i = 0; i < n; i++) sum += x[i] = Math.exp(x[i] - top);
  for (let i = 0; i < n; i++) x[i] /= sum;
}

/**
 * Rotate each adjacent pair of each head by its angle.
 * @param {Float32Array} x @param {number} headSize
 * @param {Float32Array} cos (headSize / 2) @param {Float32Array} sin
 */
function rotate(x, headSize, cos, sin) {
  for (let i = 0; i < x.length; i += 2) {
    const pair = (i % headSize) / 2, a = x[i], b = x[i + 1];
    x[i] = a * cos[pair] - b * sin[pair];
    x[i + 1] = a * sin[pair] + b * cos[pair];
  }
}

/** Keys and values of all positions so far, of one text. */
export class Cache {
  /** @param {Config} c */
  constructor(c) {
    const n = c.seqLen * c.headSize * c.nKvHeads;
    this.pos = 0;
    this.k = Array.from({ length: c.nLayers }, () => new Float32Array(n));
    this.v = Array.from({ length: c.nLayers }, () => new Float32Array(n));
  }

  /** Forget all positions from pos on. @param {number} pos */
  rewind(pos) {
    need(pos >= 0 && pos <= this.pos, "pos", `0 to ${this.pos}`, pos);
    this.pos = pos;
  }
}

/**
 * What one token leaves on its way, by layer.
 * @typedef {object} Trace
 * @property {Float32Array} embedding
 * @property {Float32Array[][]} att attention weights: layer, head, position
 * @property {Float32Array[]} afterAtt @property {Float32Array[]} afterFfn
 */

export class Transformer {
  /**
   * @param {ArrayBuffer} file a checkpoint of version 0, 1 or 2
   * @param {boolean} [wide] whether int8 weights are widened to float32 at once
   */
  constructor(file, wide = false) {
    const c = this.config = readHeader(file);
    const weights = sliceWeights(file, c);
    this.weights = wide ? widenAll(weights) : weights;
    const kvDim = c.headSize * c.nKvHeads, n = (/** @type {number} */ k) =>
      new Float32Array(k);
    this.buffers = {
      x: n(c.dim), h: n(c.dim), q: n(c.dim), k: n(kvDim), v: n(kvDim),
      heads: n(c.dim), out: n(c.dim), gate: n(c.hiddenDim), value: n(c.hiddenDim),
      scores: n(c.seqLen), cos: n(c.headSize / 2), sin: n(c.headSize / 2),
      logits: n(c.vocabSize),
    };
    this.frequencies = Float32Array.from({ length: c.headSize / 2 },
      (_, i) => 1 / Math.fround(10000 ** Math.fround((2 * i) / c.headSize)));
    /** @type {Set<string>} heads that are ablated, as "layer.head" */
    this.off = new Set();
  }

  /** @returns {Cache} */
  newCache() { return new Cache(this.config); }

  /**
   * One token through all blocks; the cache grows by one.
   * @param {number} token @param {Cache} cache
   * @param {boolean} [wanted] whether the trace is wanted
   * @returns {{logits: Float32Array, trace: Trace | null}} logits: valid until the
   *   next call
   */
  forward(token, cache, wanted = false) {
    const { config: c, weights: w, buffers: s } = this;
    need(cache.pos < c.seqLen, "cache", "room for 1 position",
      `none left of ${c.seqLen}`);
    need(Number.isInteger(token) && token >= 0 && token < c.vocabSize, "token",
      `an id from 0 to ${c.vocabSize - 1}`, token);
    for (let i = 0; i < s.cos.length; i++) {
      const angle = Math.fround(cache.pos * this.frequencies[i]);
      s.cos[i] = Math.cos(angle);
      s.sin[i] = Math.sin(angle);
    }
    readRow(w.embedding, token, s.x);
    /** @type {Trace | null} */
    const trace = wanted
      ? { embedding: s.x.slice(), att: [], afterAtt: [], afterFfn: [] } : null;
    for (let layer = 0; layer < c.nLayers; layer++) {
      this.attention(layer, cache, trace);
      this.feedForward(layer);
      if (trace) trace.afterFfn.push(s.x.slice());
    }
    rmsnorm(s.x, w.finalNorm, s.h);
    linear(s.h, w.classifier, s.logits);
    cache.pos += 1;
    return { logits: s.logits, trace };
  }

  /** @param {number} layer @param {Cache} cache @param {Trace | null} trace */
  attention(layer, cache, trace) {
    const { config: c, weights: w, buffers: s } = this;
    const { headSize, nHeads, nKvHeads } = c, kvDim = headSize * nKvHeads;
    const keys = cache.k[layer], values = cache.v[layer], n = cache.pos + 1;
    rmsnorm(s.x, w.attNorm[layer], s.h);
    linear(s.h, w.wq[layer], s.q);
    linear(s.h, w.wk[layer], s.k);
    linear(s.h, w.wv[layer], s.v);
    rotate(s.q, headSize, s.cos, s.sin);
    rotate(s.k, headSize, s.cos, s.sin);
    keys.set(s.k, cache.pos * kvDim);
    values.set(s.v, cache.pos * kvDim);
    s.heads.fill(0);
    /** @type {Float32Array[]} */
    const looks = [];
    for (let head = 0; head < nHeads; head++) {
      const first = head * headSize;
      const shared = Math.floor(head / (nHeads / nKvHeads)) * headSize;
      for (let t = 0; t < n; t++) {
        let sum = 0;
        for (let i = 0, at = t * kvDim + shared; i < headSize; i++)
          sum += s.q[first + i] * keys[at + i];
        s.scores[t] = sum / Math.sqrt(headSize);
      }
      softmax(s.scores, n);
      if (trace) looks.push(s.scores.slice(0, n));
      if (this.off.has(`${layer}.${head}`)) continue;
      for (let t = 0; t < n; t++) {
        const weight = s.scores[t], at = t * kvDim + shared;
        for (let i = 0; i < headSize; i++) s.heads[first + i] += weight * values[at + i];
      }
    }
    linear(s.heads, w.wo[layer], s.out);
    for (let i = 0; i < c.dim; i++) s.x[i] += s.out[i];
    if (!trace) return;
    trace.att.push(looks);
    trace.afterAtt.push(s.x.slice());
  }

  /** @param {number} layer */
  feedForward(layer) {
    const { config: c, weights: w, buffers: s } = this;
    rmsnorm(s.x, w.ffnNorm[layer], s.h);
    linear(s.h, w.w1[layer], s.gate);
    linear(s.h, w.w3[layer], s.value);
    for (let i = 0; i < c.hiddenDim; i++)
      s.value[i] *= s.gate[i] / (1 + Math.exp(-s.gate[i]));
    linear(s.value, w.w2[layer], s.out);
    for (let i = 0; i < c.dim; i++) s.x[i] += s.out[i];
  }

  /**
   * What the model would say after a block: the last norm and the classifier.
   * @param {Float32Array} x the residual stream @returns {Float32Array} logits
   */
  lens(x) {
    const h = new Float32Array(x.length), out = new Float32Array(this.config.vocabSize);
    rmsnorm(x, this.weights.finalNorm, h);
    linear(h, this.weights.classifier, out);
    return out;
  }
}

export const BOS = 1;
export const EOS = 2;

/** @param {Uint8Array} bytes one character for each byte, so that it can be a key */
const key = (bytes) => String.fromCharCode(...bytes);

export class Tokenizer {
  /** @param {ArrayBuffer} file a tokenizer.bin @param {number} vocabSize */
  constructor(file, vocabSize) {
    const view = new DataView(file);
    /** @type {Uint8Array[]} */
    this.pieces = [];
    /** @type {Map<string, number>} */
    this.ids = new Map();
    /** @type {number[]} */
    this.scores = [];
    for (let at = 4; at < file.byteLength;) {
      const id = this.pieces.length, token = `token ${id}`;
      need(at + 8 <= file.byteLength, token, "a score and a length", "the end of the file");
      const length = view.getUint32(at + 4, true), end = at + 8 + length;
      need(length > 0 && end <= file.byteLength, token, "a length within the file", length);
      const piece = new Uint8Array(file, at + 8, length);
      this.scores.push(view.getFloat32(at, true));
      this.pieces.push(piece);
      if (!this.ids.has(key(piece))) this.ids.set(key(piece), id);
      at = end;
    }
    need(this.pieces.length === vocabSize, "vocabulary", `${vocabSize} tokens`,
      this.pieces.length);
  }

  /** @param {string} text @param {boolean} [bos] @returns {number[]} */
  encode(text, bos = true) {
    const ids = bos ? [BOS] : [];
    /** @type {number[]} */
    const parts = [];
    if (text) parts.push(this.ids.get(" ") ?? 0); // the dummy prefix
    for (const character of text) {
      const bytes = new TextEncoder().encode(character), id = this.ids.get(key(bytes));
      if (id === undefined) for (const byte of bytes) parts.push(byte + 3);
      else parts.push(id);
    }
    for (;;) { // merge the pair of the highest score, the leftmost at a tie
      let best = -1e10, place = -1, merged = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const id = this.ids.get(key(this.pieces[parts[i]]) + key(this.pieces[parts[i + 1]]));
        if (id !== undefined && this.scores[id] > best)
          [best, place, merged] = [this.scores[id], i, id];
      }
      if (place < 0) return [...ids, ...parts];
      parts.splice(place, 2, merged);
    }
  }

  /** @returns {(id: number) => string} tokens to text, one after the other */
  decoder() {
    const utf8 = new TextDecoder(), stream = { stream: true };
    let previous = -1;
    return (id) => {
      let piece = this.pieces[id];
      const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(key(piece));
      if (previous === BOS && piece[0] === 32) piece = piece.subarray(1);
      previous = id;
      if (id === BOS) return "";
      return utf8.decode(byte ? new Uint8Array([parseInt(byte[1], 16)]) : piece, stream);
    };
  }

  /** @param {number[]} ids @returns {string} */
  decode(ids) {
    const push = this.decoder();
    return ids.map((id) => push(id)).join("");
  }
}

const MASK64 = (1n << 64n) - 1n;

export class Sampler {
  /** @param {{temperature?: number, topP?: number, seed?: bigint | number}} params */
  constructor({ temperature = 1, topP = 0.9, seed = 1 } = {}) {
    this.temperature = Math.fround(temperature);
    this.topP = Math.fround(topP);
    this.state = BigInt(seed) & MASK64 || 0x9e3779b97f4a7c15n;
  }

  /** One step of xorshift64*: a uniform number in [0, 1). */
  draw() {
    let s = this.state;
    s ^= s >> 12n;
    s ^= (s << 25n) & MASK64;
    s ^= s >> 27n;
    this.state = s;
    const bits = Number(((s * 0x2545f4914f6cdd1dn) & MASK64) >> 32n);
    return Math.fround((bits >>> 8) / 2 ** 24);
  }

  /** @param {Float32Array} logits @returns {Float32Array} what is chosen from */
  probabilities(logits) {
    const p = logits.map((x) => x / this.temperature);
    softmax(p);
    return p;
  }

  /** @param {Float32Array} p @returns {number[]} ids that are kept, best first */
  nucleus(p) {
    const cutoff = Math.fround(Math.fround(1 - this.topP) / Math.fround(p.length - 1));
    const ids = [...p.keys()].filter((i) => p[i] >= cutoff);
    if (!ids.length) return [argmax(p)];
    ids.sort((a, b) => p[b] - p[a] || a - b);
    let sum = 0;
    for (let i = 0; i < ids.length; i++) {
      sum = Math.fround(sum + p[ids[i]]);
      if (sum > this.topP) return ids.slice(0, i + 1);
    }
    return ids;
  }

  /** @param {Float32Array} logits @returns {number} */
  sample(logits) {
    if (this.temperature === 0) return argmax(logits);
    const p = this.probabilities(logits);
    const whole = this.topP <= 0 || this.topP >= 1;
    const ids = whole ? [...p.keys()] : this.nucleus(p);
    let number = this.draw(), sum = 0;
    if (!whole) number = Math.fround(number * ids.reduce((s, i) => Math.fround(s + p[i]), 0));
    for (const id of ids) {
      sum = Math.fround(sum + p[id]);
      if (number < sum) return id;
    }
    return ids[ids.length - 1];
  }
}

/** @param {Float32Array} x @returns {number} the first maximum */
export function argmax(x) {
  let best = 0;
  for (let i = 1; i < x.length; i++) if (x[i] > x[best]) best = i;
  return best;
}
