// @ts-check
// The live page: an Explorer whose engine is a worker beside it.

import { Explorer } from "./explorer.js";

const MODEL = "tales_q80.bin", VOCABULARY = "tok896.bin", OPENING = "opening.json";
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const explorer = new Explorer(document, {
  post: (message) => worker.postMessage(message),
  listen: (receive) => { worker.onmessage = ({ data }) => receive(data); },
}, { address: true });

/** @param {string} name */
const address = (name) => new URL(name, location.href.split("#")[0]).href;

/** Numbers of four bytes each, as base64. @param {string} text */
const floats = (text) =>
  new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

/** The beginning of the first story, stored: shown until the model is here. */
async function open() {
  const reply = await fetch(address(OPENING));
  if (!reply.ok || location.hash) return;
  const opening = await reply.json();
  for (const token of opening.tokens)
    Object.assign(token, { att: floats(token.att), logits: floats(token.logits) });
  explorer.receive(opening);
}

worker.postMessage({ type: "open", model: address(MODEL), vocabulary: address(VOCABULARY) });
open();

// a model of one's own
const input = /** @type {HTMLInputElement} */ (document.getElementById("file"));
input.onchange = async () => {
  const files = [...input.files ?? []], words = files.find((f) => /^tok/i.test(f.name));
  const model = files.find((f) => f !== words);
  if (!model || !words)
    return explorer.say("Choose two files: the model and its tokenizer (tokenizer.bin).", true);
  explorer.ready = false;
  explorer.say(`${model.name} is being read …`);
  explorer.off.clear();
  explorer.versions = [];
  explorer.version = explorer.chosen = -1;
  explorer.whole = [];
  explorer.compare = "";
  history.replaceState(null, "", "#");
  const buffers = [await model.arrayBuffer(), await words.arrayBuffer()];
  worker.postMessage({ type: "open", model: buffers[0], vocabulary: buffers[1] }, buffers);
};
