#!/usr/bin/env python3
"""Train the model that ships inside the package, on two CPU cores, in about an hour.

    python tools/train_embedded.py --out llama2_nb/models --state build/embedded --steps 3800 --seed 1

It invents the corpus (`llama2_nb.tales`), learns the vocabulary, trains, and writes `tales.bin` and
`tok<vocab_size>.bin`. Started again with the same arguments it goes on from the state it saved last.
"""
import argparse
import math
import os
import random
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from llama2_nb.checkpoint import write_checkpoint
from llama2_nb.config import Config
from llama2_nb.tales import dialogue, tell
from llama2_nb.tokenizer import BOS, EOS, WORDS, Tokenizer, train_vocabulary

CONFIG = Config(dim=128, hidden_dim=320, n_layers=5, n_heads=8, n_kv_heads=4, vocab_size=896, seq_len=512)
CHATS = 0.2               # the share of sequences that are conversations
PROMPTS = ("", "The fox", "Lily and the dragon", "[INST] Tell me a story about a rabbit. [/INST]")


# ---- the corpus ------------------------------------------------------------------------------------

def question(text): return f"[INST] {text} [/INST]"

def vocabulary(seed: int, vocab_size: int, n: int = 20_000) -> Tokenizer:
    "Learn the vocabulary from `n` sequences, stories and conversations in the corpus's proportion."
    rng, texts = random.Random(f"vocabulary {seed}"), []
    for _ in range(n):
        if rng.random() < CHATS: texts += [f" {question(user)} {answer}" for user, answer in dialogue(rng)]
        else: texts.append(" " + tell(rng))
    return train_vocabulary(texts, vocab_size)

def quick_encoder(tok: Tokenizer):
    "`tok.encode` for many texts: no piece crosses the border of a word, so each word need be encoded only once."
    space, known = [tok.pieces.index(b" ")], {}
    def encode_word(word):   # encode() puts a space in front: a word that has one drops it, another hides behind a line feed
        if word == " ": return space
        return tok.encode(word[1:], bos=False) if word[0] == " " else tok.encode("\n" + word, bos=False)[2:]
    def encode(text):
        ids = []
        for word in WORDS.findall(" " + text):
            if word not in known: known[word] = encode_word(word)
            ids += known[word]
        return ids
    return encode

def corpus(tok: Tokenizer, seed: str, n: int):
    """`n` sequences laid end to end, where each begins, and which tokens are to be learned:
    (uint16 ids, int64 starts, bool learn). A question is read, never learned: the model answers, it doesn't ask."""
    rng, encode = random.Random(seed), quick_encoder(tok)
    parts, learns, starts, size = [], [], [], 0
    for i in range(n):
        ids, learn = [], []
        if rng.random() < CHATS:
            for user, answer in dialogue(rng):
                asked, answered = encode(question(user)), [*encode(answer), EOS]
                ids += [BOS, *asked, *answered]
                learn += [True, *[False] * len(asked), *[True] * len(answered)]
        else:
            ids = [BOS, *encode(tell(rng))]
            learn = [True] * len(ids)
        if i < 200 and EOS not in ids:   # the quick encoder agrees with the slow one
            assert tok.encode(tok.decode(ids)) == ids
        starts.append(size); parts.append(np.array(ids, np.uint16)); learns.append(np.array(learn)); size += len(ids)
    return np.concatenate(parts), np.array(starts), np.concatenate(learns)


# ---- the model: llama2.c's, for training -------------------------------------------------------------

def rotate(x, cos, sin):   # (batch, heads, T, head_size): adjacent pairs turn together
    x0, x1 = x[..., ::2], x[..., 1::2]
    return torch.stack((x0 * cos - x1 * sin, x0 * sin + x1 * cos), -1).flatten(-2)

class Block(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        def linear(n_in, n_out, std=0.02):
            layer = nn.Linear(n_in, n_out, bias=False)
            nn.init.normal_(layer.weight, std=std)
            return layer
        residual = 0.02 / math.sqrt(2 * c.n_layers)
        self.c = c
        self.rms_att, self.rms_ffn = nn.Parameter(torch.ones(c.dim)), nn.Parameter(torch.ones(c.dim))
        self.wq, self.wo = linear(c.dim, c.dim), linear(c.dim, c.dim, residual)
        self.wk, self.wv = linear(c.dim, c.kv_dim), linear(c.dim, c.kv_dim)
        self.w1, self.w3 = linear(c.dim, c.hidden_dim), linear(c.dim, c.hidden_dim)
        self.w2 = linear(c.hidden_dim, c.dim, residual)

    def forward(self, x, cos, sin):   # (batch, T, dim)
        c, (B, T, _) = self.c, x.shape
        h = F.rms_norm(x, (c.dim,), self.rms_att, 1e-5)
        q = rotate(self.wq(h).view(B, T, c.n_heads, c.head_size).transpose(1, 2), cos, sin)
        k = rotate(self.wk(h).view(B, T, c.n_kv_heads, c.head_size).transpose(1, 2), cos, sin)
        v = self.wv(h).view(B, T, c.n_kv_heads, c.head_size).transpose(1, 2)
        k, v = k.repeat_interleave(c.kv_mul, 1), v.repeat_interleave(c.kv_mul, 1)
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        x = x + self.wo(out.transpose(1, 2).reshape(B, T, c.dim))
        h = F.rms_norm(x, (c.dim,), self.rms_ffn, 1e-5)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))

class Model(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.c, self.embedding = c, nn.Parameter(torch.randn(c.vocab_size, c.dim) * 0.02)
        self.blocks, self.rms_final = nn.ModuleList(Block(c) for _ in range(c.n_layers)), nn.Parameter(torch.ones(c.dim))
        frequency = 10000.0 ** -(torch.arange(0, c.head_size, 2) / c.head_size)
        angle = torch.outer(torch.arange(c.seq_len), frequency)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids, targets=None):   # (batch, T) → the mean loss, or logits (batch, T, vocab_size)
        x, T = F.embedding(ids, self.embedding), ids.shape[1]
        for block in self.blocks: x = block(x, self.cos[:T], self.sin[:T])
        logits = F.linear(F.rms_norm(x, (self.c.dim,), self.rms_final, 1e-5), self.embedding)
        return logits if targets is None else F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def weights(self) -> dict[str, np.ndarray]:
        "The weights under llama2.c's names, one array for all layers."
        def stack(name): return torch.stack([block.get_parameter(name) for block in self.blocks])
        named = {name: stack(f"{name}.weight") for name in ("wq", "wk", "wv", "wo", "w1", "w2", "w3")}
        named |= dict(token_embedding_table=self.embedding, rms_att_weight=stack("rms_att"),
                      rms_ffn_weight=stack("rms_ffn"), rms_final_weight=self.rms_final)
        return {name: w.detach().float().numpy() for name, w in named.items()}

@torch.no_grad()
def sample(model: Model, tok: Tokenizer, prompt: str, temperature=0.8, top_p=0.9, steps=256, seed=0):
    "Continue `prompt` until the next sequence begins; returns the text and whether it came to its end."
    rng, ids = torch.Generator().manual_seed(seed), tok.encode(prompt)
    while len(ids) < steps:
        logits = model(torch.tensor([ids]))[0, -1]
        if temperature == 0: next_id = int(logits.argmax())
        else:
            p, order = torch.softmax(logits / temperature, 0).sort(descending=True)
            p[p.cumsum(0) - p > top_p] = 0
            next_id = int(order[torch.multinomial(p, 1, generator=rng)])
        if next_id in (BOS, EOS): return tok.decode(ids), True
        ids.append(next_id)
    return tok.decode(ids), False


# ---- training ----------------------------------------------------------------------------------------

def learning_rate(step, steps, peak, warmup=200):
    if step < warmup: return peak * (step + 1) / warmup
    return peak * (0.005 + 0.995 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2)

def optimizer_for(model, weight_decay=0.1):
    "AdamW; gains are not decayed."
    groups = [[p for p in model.parameters() if p.dim() > 1], [p for p in model.parameters() if p.dim() == 1]]
    return torch.optim.AdamW([dict(params=groups[0], weight_decay=weight_decay), dict(params=groups[1], weight_decay=0.0)],
                             betas=(0.9, 0.95), eps=1e-8, fused=True)

def save(path, obj):
    torch.save(obj, f"{path}.part")
    os.replace(f"{path}.part", path)

def rows(data, order, length):
    "Inputs and targets (len(order), length): each row begins where a sequence does; -100 is no target."
    ids, starts, learn = data
    at = starts[order][:, None] + np.arange(length + 1)
    window = torch.from_numpy(ids[at].astype(np.int64))
    return window[:, :-1], torch.where(torch.from_numpy(learn[at[:, 1:]]), window[:, 1:], -100)

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("llama2_nb/models"), help="folder for the model and its vocabulary")
    parser.add_argument("--state", type=Path, default=Path("build/embedded"), help="folder for what a restart needs")
    parser.add_argument("--steps", type=int, default=3800)
    parser.add_argument("--batch", type=int, default=20, help="rows a step")
    parser.add_argument("--length", type=int, default=512, help="tokens a row: as many as the model may be asked for, or late positions would never be trained")
    parser.add_argument("--lr", type=float, default=3e-3, help="the peak of the learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True); args.state.mkdir(parents=True, exist_ok=True)
    def log(*words): print(time.strftime("%H:%M:%S"), *words, flush=True)

    vocabulary_file = args.out / f"tok{CONFIG.vocab_size}.bin"
    if (args.state / "state.pt").exists(): tok = Tokenizer.open(vocabulary_file, CONFIG.vocab_size)
    else:
        tok = vocabulary(args.seed, CONFIG.vocab_size)
        tok.write(vocabulary_file)
    log("vocabulary", tok.vocab_size, vocabulary_file)
    data = corpus(tok, f"train {args.seed}", args.steps * args.batch + 8)
    held = corpus(tok, f"held out {args.seed}", 512 + 8)
    order = np.random.default_rng(args.seed).permutation(args.steps * args.batch)
    log(f"corpus {len(data[0]):,} tokens, {len(data[0]) / len(data[1]):.1f} a sequence")

    model, first = Model(CONFIG), 0
    optimizer = optimizer_for(model)
    if (args.state / "state.pt").exists():
        state = torch.load(args.state / "state.pt")
        model.load_state_dict(state["model"]); optimizer.load_state_dict(state["optimizer"]); first = state["step"]
    compiled = torch.compile(model)
    log(f"{sum(p.numel() for p in model.parameters()):,} parameters, from step {first}")

    def loss_of(x, y):
        with torch.autocast("cpu", dtype=torch.bfloat16): return compiled(x, y)

    def held_out_loss():
        with torch.no_grad():
            return np.mean([loss_of(*rows(held, np.arange(i, i + args.batch), args.length)).item()
                            for i in range(0, 513 - args.batch, args.batch)])

    began = saved = exported = shown = time.time()
    total = 0.0
    for step in range(first, args.steps):
        for group in optimizer.param_groups: group["lr"] = learning_rate(step, args.steps, args.lr)
        loss = loss_of(*rows(data, order[step * args.batch:(step + 1) * args.batch], args.length))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(); optimizer.zero_grad()
        total += loss.item()
        now, done, last = time.time(), step + 1, step + 1 == args.steps
        if done % 50 == 0:
            rate = (done - first) * args.batch * args.length / (now - began)
            left = (args.steps - done) * (now - began) / (done - first) / 60
            log(f"step {done} loss {total / 50:.4f} lr {optimizer.param_groups[0]['lr']:.5f} {rate:,.0f} tokens/s, {left:.0f} minutes left")
            total = 0.0
        if now - saved > 180 or last:
            save(args.state / "state.pt", dict(model=model.state_dict(), optimizer=optimizer.state_dict(), step=done))
            saved = now
        if now - shown > 420 or last:
            log(f"step {done} held-out loss {held_out_loss():.4f}")
            for prompt in PROMPTS: log("sample:", *sample(model, tok, prompt, seed=done))
            shown = time.time()
        if now - exported > 600 or last:
            for folder in {args.state, args.out} if last else {args.state}:
                write_checkpoint(folder / "tales.bin", CONFIG, model.weights())
            exported = now
            log("wrote", args.out / "tales.bin" if last else args.state / "tales.bin")

if __name__ == "__main__": main()
