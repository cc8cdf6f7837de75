// @ts-check
// The engine of a page: runs llama.js apart from it, so that the page never waits.
// Takes: open (files), write (a run), stop. Gives: ready, token, end, error.

import { BOS, Sampler, Tokenizer, Transformer, argmax } from "./llama.js";

/** @type {Transformer} */ let model;
/** @type {Tokenizer} */ let tokenizer;
let current = 0; // the run that may go on

/** @param {string} path @returns {Promise<ArrayBuffer>} */
async function read(path) {
  const reply = await fetch(path);
  if (!reply.ok) throw new Error(`${path}: the server says ${reply.status}`);
  return reply.arrayBuffer();
}

/** @param {any} message */
async function open({ model: file, vocabulary }) {
  const bytes = typeof file === "string" ? await read(file) : file;
  const words = typeof vocabulary === "string" ? await read(vocabulary) : vocabulary;
  const opened = new Transformer(bytes, true);
  tokenizer = new Tokenizer(words, opened.config.vocabSize);
  model = opened;
  const decoder = new TextDecoder();
  postMessage({
    type: "ready",
    config: model.config,
    bos: BOS,
    bytes: bytes.byteLength,
    pieces: tokenizer.pieces.map((piece) => decoder.decode(piece)),
  });
}

/** What the model would say after each block. @param {Float32Array[]} streams */
function guesses(streams) {
  return streams.map((x) => {
    const logits = model.lens(x), id = argmax(logits);
    let sum = 0;
    for (const logit of logits) sum += Math.exp(logit - logits[id]);
    return { id, p: 1 / sum };
  });
}

/** @param {any} message prompt or ids, temperature, topP, seed, off, steps */
async function write({ run, prompt, ids, temperature, topP, seed, off, steps }) {
  current = run;
  const given = ids ?? tokenizer.encode(prompt), cache = model.newCache();
  const sampler = new Sampler({ temperature, topP, seed: BigInt(seed) });
  const most = Math.min(steps || Infinity, model.config.seqLen);
  model.off = new Set(off);
  const start = performance.now();
  let id = given[0], pos = 0, last = start;
  const push = tokenizer.decoder();
  for (; pos < most; pos++) {
    const { logits, trace } = model.forward(id, cache, true);
    if (!trace) break;
    const { nLayers, nHeads } = model.config;
    const att = new Float32Array(nLayers * nHeads * (pos + 1));
    trace.att.forEach((heads, layer) => heads.forEach((weights, head) =>
      att.set(weights, (layer * nHeads + head) * (pos + 1))));
    const all = logits.slice();
    const token = {
      type: "token", run, pos, id, text: push(id), given: pos < given.length, att,
      logits: all, lens: guesses([trace.embedding, ...trace.afterFfn]),
    };
    postMessage(token, { transfer: [att.buffer, all.buffer] });
    id = pos + 1 < given.length ? given[pos + 1] : sampler.sample(logits);
    if (id === BOS) break;
    if (performance.now() - last > 12) { // let messages in: perhaps it is to stop
      await new Promise((done) => setTimeout(done));
      last = performance.now();
      if (current !== run) return;
    }
  }
  const seconds = (performance.now() - start) / 1000;
  postMessage({ type: "end", run, story: id === BOS, tokens: pos, seconds });
}

onmessage = async ({ data }) => {
  try {
    if (data.type === "open") await open(data);
    else if (data.type === "write") await write(data);
    else if (data.type === "stop") current = -1;
  } catch (e) {
    postMessage({ type: "error", message: e instanceof Error ? e.message : String(e) });
  }
};
