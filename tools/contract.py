"""What must be true of any bytes that claim to be a model or a vocabulary, written down a second
time.

The two readers know nothing of the package. They walk through a file from its first byte to its
last, as the format says, and answer with what it holds, or with None if it must be refused. The two
judges hold the package against them. `tools/fuzz.py` and `nbs/64_hostile.ipynb` feed the judges.
"""

import json
import os
import re
import struct
import warnings
from pathlib import Path

import numpy as np

from llama2_nb import checkpoint, tokenizer, transformer
from llama2_nb.config import CheckpointError
from llama2_nb.sampling import Sampler, SamplingParams
from llama2_nb.storage import int8
from llama2_nb.tokenizer import TokenizerError

OTHER_FORMATS = re.compile(
    rb"GGUF|PK\x03\x04|\x80\x02\x8a\nl\xfc\x9cF\xf9 |\x1f\x8b|version https://git-lfs"
    rb"|.{4}\0{4}\{[\" ]|(?i:\s{0,63}<(!doctype|html))",
    re.S,
)
CACHE_CAP = 2**36  # bytes of keys and values above which a header is refused
STEP_CAP = 2**22  # bytes of keys and values up to which a judge takes two steps with the model
LONGEST = 4400  # bytes of a file for the judges; the largest seed has 3,676
# what breaks things
NUMBERS = [
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    12,
    64,
    255,
    2**15,
    2**16,
    2**20,
    2**30,
    2**31 - 1,
    -1,
    -2,
    -5,
    -(2**31),
]
FLOATS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-45,
    1e-20,
    1e30,
    -1e30,
    3.4e38,
    -3.4e38,
    float("inf"),
    float("-inf"),
    float("nan"),
]


def tensor_order(version: int, shared: int, numbers: list[int]) -> list[tuple[str, int, int]]:
    "The tensors of a file as they follow each other: name, how many, numbers in each."
    dim, hidden, layers, heads, kv_heads, vocab, seq_len = numbers
    kv = dim // heads * kv_heads
    norms = [
        ("rms_att_weight", layers, dim),
        ("rms_ffn_weight", layers, dim),
        ("rms_final_weight", 1, dim),
    ]
    table, classifier = (
        [("token_embedding_table", 1, vocab * dim)],
        [] if shared else [("wcls", 1, vocab * dim)],
    )
    attention = [
        (name, layers, n * dim) for name, n in (("wq", dim), ("wk", kv), ("wv", kv), ("wo", dim))
    ]
    feed_forward = [(name, layers, hidden * dim) for name in ("w1", "w2", "w3")]
    if version:
        return norms + table + attention + feed_forward + classifier
    skipped = [("skipped", 2, seq_len * (dim // heads // 2))]
    return (
        table + norms[:1] + attention + norms[1:2] + feed_forward + norms[2:] + skipped + classifier
    )


def read_header(data: bytes) -> tuple[int, int, list[int], int | None] | None:
    """Version, shared flag, seven numbers and group size of a file, or None if no model can have
    them.
    """
    versioned = data[:4] == b"24ka"
    if OTHER_FORMATS.match(data) or len(data) < (256 if versioned else 28):
        return None
    version, *numbers = (
        struct.unpack_from("<8i", data, 4) if versioned else (0, *struct.unpack_from("<7i", data))
    )
    shared = data[36] if versioned else int(numbers[5] > 0)
    if not versioned:
        numbers[5] = abs(numbers[5])
    group = struct.unpack_from("<i", data, 37)[0] if version == 2 else None
    if (
        versioned
        and version not in (1, 2)
        or shared not in (0, 1)
        or group is not None
        and group < 1
    ):
        return None
    dim, _, layers, heads, kv_heads, _, seq_len = numbers
    if min(numbers) < 1 or max(numbers) > 2**31 - 1:
        return None
    if dim % heads or dim // heads % 2 or kv_heads > heads or heads % kv_heads:
        return None
    if 2 * layers * seq_len * (dim // heads * kv_heads) * 4 > CACHE_CAP:
        return None
    return version, shared, numbers, group


def read_checkpoint(data: bytes) -> tuple[tuple, dict[str, np.ndarray]] | None:
    """All that a model file says: its header, and name → (how many, bytes of each). None for what
    is no model file.
    """
    if (header := read_header(data)) is None:
        return None
    version, shared, numbers, group = header
    position, tensors = 256 if version else 28, {}
    for name, count, n in tensor_order(version, shared, numbers):
        int8 = version == 2 and not name.startswith("rms_")
        if int8 and n % group:
            return None
        size = count * (n + 4 * (n // group) if int8 else 4 * n)
        if position + size > len(data):
            return None
        tensors[name] = np.frombuffer(data, np.uint8, size, position).reshape(count, -1)
        position += size
        if int8:
            scales = np.ascontiguousarray(tensors[name][:, n:]).view("<f4")
            if not (np.isfinite(scales) & (scales >= 0)).all():
                return None
    tensors.pop("skipped", None)
    return (header, tensors) if position == len(data) else None


def read_vocabulary(data: bytes) -> list[tuple[float, bytes]] | None:
    "Score and piece of every token; None for what is no vocabulary."
    if len(data) < 4 or not 1 <= struct.unpack_from("<I", data)[0] <= len(data):
        return None
    longest, position, tokens = struct.unpack_from("<I", data)[0], 4, []
    while position < len(data):
        if position + 8 > len(data):
            return None
        score, length = struct.unpack_from("<fI", data, position)
        if score != score or not 1 <= length <= longest or position + 8 + length > len(data):
            return None
        tokens.append((score, data[position + 8 : position + 8 + length]))
        position += 8 + length
    pieces = [piece for _, piece in tokens]
    return (
        tokens
        if pieces[3:259] == [b"<0x%02X>" % byte for byte in range(256)] and b" " in pieces
        else None
    )


def refusal(path, e: Exception) -> str:
    """The message of a refusal: one line that begins with the path and says what was expected and
    what was found.
    """
    message = str(e)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 1000, (
        f"no sentence: {message!r}"
    )
    assert re.search("expected .+, found .+", message, re.S), (
        f"says not what was expected and found: {message!r}"
    )
    return message


def bytes_of(tensor) -> np.ndarray:  # as the file has them
    "A float32 array, or the int8 and scales of each matrix of an `Int8`."
    if not isinstance(tensor, int8.Int8):
        return np.ascontiguousarray(tensor).view(np.uint8).ravel()
    layers = zip(tensor.q, tensor.scales) if tensor.q.ndim == 3 else [(tensor.q, tensor.scales)]
    return np.concatenate(
        [np.ascontiguousarray(part).view(np.uint8).ravel() for layer in layers for part in layer]
    )


def judge_checkpoint(path, data: bytes, **options) -> str:  # path: of a file with these bytes
    """Open a checkpoint, compare it with `read_checkpoint`, take two steps with it: "model", or the
    refusal. Raises `AssertionError` if the package is wrong."""
    expected = read_checkpoint(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of padding that is not zero, of weights that overflow
        try:
            ckpt = checkpoint.Checkpoint.open(path, **options)
        except CheckpointError as e:
            assert expected is None, f"a good file was refused: {e}"
            return refusal(path, e)
        with ckpt:
            assert expected is not None, "a bad file was accepted"
            (version, shared, numbers, group), tensors = expected
            c, h = ckpt.config, ckpt.header
            assert (h.version, h.group_size) == (version, group or 0), (
                "another version or group size"
            )
            assert c == type(c)(*numbers, bool(shared)), "another Config"
            for name, wanted in tensors.items():
                found = bytes_of(getattr(ckpt.weights, name))
                assert np.array_equal(found, wanted.ravel()), f"{name} is another tensor"
            assert ("wcls" in tensors) != (ckpt.weights.wcls is ckpt.weights.token_embedding_table)
            if 8 * c.n_layers * c.seq_len * c.kv_dim <= STEP_CAP:
                two_steps(ckpt)
    return "model"


def two_steps(ckpt) -> None:
    """The model takes a token and chooses the next one; or its sampler says that the logits are no
    numbers.
    """
    model, token, c = transformer.Transformer(ckpt), 0, ckpt.config
    cache = model.new_cache()
    with np.errstate(all="ignore"):
        for step in range(min(2, c.seq_len)):
            logits = model.forward([token], cache, last_only=True)
            assert (
                logits.shape == (1, c.vocab_size)
                and logits.dtype == np.float32
                and cache.pos == step + 1
            )
            try:
                token = Sampler(SamplingParams(1.0, 0.9, 1)).sample(logits[-1])
            except ValueError as e:
                assert str(e).startswith("logits: expected finite numbers"), e
                return
            assert 0 <= token < c.vocab_size


def judge_vocabulary(path, data: bytes) -> str:  # path: of a file with these bytes
    """Open a tokenizer file, compare it with `read_vocabulary`, cut and join a text with it:
    "vocabulary", or the refusal. Raises `AssertionError` if the package is wrong."""
    expected = read_vocabulary(data)
    try:
        tok = tokenizer.Tokenizer.open(path)
    except TokenizerError as e:
        assert expected is None, f"a good file was refused: {e}"
        return refusal(path, e)
    assert expected is not None, "a bad file was accepted"
    assert tok.pieces == [piece for _, piece in expected] and tok.scores == [
        score for score, _ in expected
    ]
    ids = tok.encode("Once, \u00e9\U0001f98a <0x41>\n", eos=True)
    assert all(0 <= id < len(tok.pieces) for id in ids) and isinstance(tok.decode(ids), str)
    assert isinstance(tok.decode(range(len(tok.pieces))), str)
    return "vocabulary"


FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "generation_config.json",
    "model.safetensors",
)  # of a folder; the first byte says which


def judge_folder(path, data: bytes) -> str:  # path: of a folder whose other files are good
    """Put bytes into one file of a folder and open all of it: "vocabulary", or the refusal. Raises
    `AssertionError` for a refusal that is none, or a vocabulary whose parts contradict each
    other."""
    from llama2_nb.formats import huggingface as convert
    from llama2_nb.formats import templates  # here, so that other judges don't carry them
    from llama2_nb.formats import vocabularies as dialogue

    name = FILES[data[0] % len(FILES)] if data else FILES[0]
    before = {
        each: open(os.path.join(path, each), "rb").read()
        for each in FILES
        if os.path.exists(os.path.join(path, each))
    }
    if name == "tokenizer.model":
        os.unlink(os.path.join(path, "tokenizer.json"))  # or it would not be read
    try:
        with open(os.path.join(path, name), "wb") as f:
            f.write(data[1:])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                convert.Folder.open(path)
                tok = dialogue.open_folder(path, 300)
                templates.folder_templates(Path(path))
                ids = tok.encode("Once, \u00e9\U0001f98a <0x41>\n<|x|>", eos=True)
            except (CheckpointError, TokenizerError, templates.TemplateError) as e:
                message = str(e)
                assert "\n" not in message and len(message) < 1500 and "expected" in message, (
                    f"no sentence: {message!r}"
                )
                assert message.isprintable(), f"not printable: {message!r}"
                return message
            assert all(type(id) is int and 0 <= id for id in ids)
            decoder = tok.decoder()
            text = (
                "".join([decoder.push(id) for id in ids if id < tok.vocab_size]) + decoder.flush()
            )
            assert (
                text == tok.decode([id for id in ids if id < tok.vocab_size])
                and len(tok.pieces) >= tok.vocab_size
            )
    finally:
        for each in FILES:
            place = os.path.join(path, each)
            if each in before:
                with open(place, "wb") as f:
                    f.write(before[each])
            elif os.path.exists(place):
                os.unlink(place)
    return "vocabulary"


def make_folder(path) -> None:
    "A good folder with a vocabulary of 300 pieces, as small as it can be."
    from llama2_nb.formats import huggingface as convert
    from llama2_nb.formats import vocabularies as dialogue

    fixed = [b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [b"<0x%02X>" % byte for byte in range(256)]
    rest = [b" ", b"O", b"n", b"On", b" O", b"c", b"e", b"ce"]
    tok = tokenizer.Tokenizer(fixed + rest, [0.0] * 259 + [-float(i) for i in range(len(rest))])
    c = convert.Config(4, 4, 1, 2, 1, 300, 8, norm_eps=1e-5)
    weights = {
        name: np.zeros(shape, np.float32) for name, shape in convert.tensor_shapes(c).items()
    }
    convert.write_folder(
        path,
        c,
        convert.Weights(**weights, wcls=weights["token_embedding_table"]),
        files={
            "tokenizer.json": json.dumps(dialogue.to_json(tok), ensure_ascii=False).encode(),
            "tokenizer_config.json": json.dumps(
                dict(
                    bos_token="<s>",
                    eos_token="</s>",
                    chat_template="{{ messages }}",
                    added_tokens_decoder={"267": dict(content="<|x|>", special=True)},
                )
            ).encode(),
            "added_tokens.json": b'{"<|x|>": 267}',
            "special_tokens_map.json": b'{"bos_token": {"content": "<s>"}}',
            "tokenizer.model": sentencepiece_file(tok),
        },
    )


def sentencepiece_file(tok) -> bytes:
    "A llama2.c vocabulary as tokenizer.model."

    def whole(n: int) -> bytes:
        return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + whole(n >> 7)

    def field(number: int, data) -> bytes:
        if isinstance(data, int):
            return whole(number << 3) + whole(data)
        return whole(number << 3 | 2) + whole(len(data)) + data

    out = b""
    for id, (piece, score) in enumerate(zip(tok.pieces, tok.scores)):
        text = {0: b"<unk>", 1: b"<s>", 2: b"</s>"}.get(id, piece.replace(b" ", "\u2581".encode()))
        kind = {0: 2, 1: 3, 2: 3}.get(id, 6 if id < 259 else 1)
        out += field(
            1, field(1, text) + whole(2 << 3 | 5) + struct.pack("<f", score) + field(3, kind)
        )
    return out + field(2, field(3, 2)) + field(3, field(3, 1) + field(4, 0) + field(5, 1))


def fit(data: bytes, fill: bytes) -> bytes:
    """The same header with as many bytes behind it as it asks for; the same bytes, if that would
    be too long.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            size = checkpoint.read_header(data[:256]).file_size()
        except CheckpointError:
            return data
    return data if size > LONGEST else (data + fill * LONGEST)[:size]


def make_checkpoint(version: int, shared: int, numbers: list[int], group: int | None, rng) -> bytes:
    "A model file with random weights; norms and scales are positive."
    *fields, vocab, seq_len = numbers
    file = struct.pack("<7i", *fields, vocab if shared else -vocab, seq_len)
    if version:
        file = b"24ka" + struct.pack("<8iBi", version, *numbers, shared, group or 0).ljust(
            252, b"\0"
        )
    for name, count, n in tensor_order(version, shared, numbers):
        norm, int8 = name.startswith("rms_"), version == 2 and not name.startswith("rms_")
        for _ in range(count):
            if int8:
                file += rng.integers(-127, 128, n).astype(np.int8).tobytes()
            floats = rng.standard_normal(n // group if int8 else n)
            file += (np.abs(floats) if norm or int8 else floats).astype("<f4").tobytes()
    return file


def seed_files() -> dict[str, list[bytes]]:  # target of the fuzzer → small good files
    """Checkpoints of all versions whose sizes are as small as they can be, and vocabularies of 260
    and 264 tokens.
    """
    kinds = {"checkpoint": [], "versioned": [], "tokenizer": []}
    for numbers, shared, group in [
        ([4, 3, 1, 2, 1, 5, 3], 1, 4),
        ([4, 6, 2, 1, 1, 3, 2], 0, 2),
        ([8, 4, 1, 4, 2, 2, 4], 1, 4),
        ([2, 1, 1, 1, 1, 1, 1], 0, 1),
    ]:
        for version in 0, 1, 2:
            file = make_checkpoint(
                version, shared, numbers, group, np.random.default_rng(sum(numbers))
            )
            kinds["versioned" if version else "checkpoint"].append(file)
    fixed = [b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [b"<0x%02X>" % byte for byte in range(256)]
    for more in [b" "], [b" ", b"O", b"n", b"On", "\u00e9".encode()]:
        file = struct.pack("<I", 7)
        for i, piece in enumerate(fixed + more):
            file += struct.pack("<fI", -float(i), len(piece)) + piece
        kinds["tokenizer"].append(file)
    return kinds
