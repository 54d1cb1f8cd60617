"""Routings of a real text: the manual that every Python brings along, its words embedded and routed.

    python -m gemm_lessons.moe.text_routing          write gemm_lessons/routings/text.npz
    python -m gemm_lessons.moe.text_routing --check  fail if it would come out otherwise

    "The loop variable is"  ->  tokens       words and punctuation, in the order of the text
                            ->  x [T, 64]    sum of a fixed random vector for each three letters of the
                                             word, plus half of the word before it
                            ->  logits       x @ w.T with fixed random weights w [E, 64]
                            ->  top-k        as `router.TopK`

Nothing is trained, so no expert means anything.  What is real is the text: words come as often as they do
("the" in every second line, most words once), the same word always goes the same way, and topics follow
each other.  That is where the uneven and changing loads come from that random counts do not have.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from gemm_lessons.moe.router import TopK
from gemm_lessons.moe.routing import Array

PATH = Path(__file__).resolve().parent.parent / "routings" / "text.npz"
WIDTH = 64
BATCH = 8192  # tokens
BATCHES = 4
SHAPES = {"8": (8, 2), "64": (64, 6)}  # experts and experts per token
COMMAND = "python -m gemm_lessons.moe.text_routing"


def text() -> str:
    """The pages that Python's `help()` shows, one after the other."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def tokens_of(written: str) -> list[str]:
    """Words, numbers and single signs, in lower case."""
    return re.findall(r"[a-z]+|[0-9]+|[^\sa-z0-9]", written.lower())


def embed(tokens: list[str]) -> Array:
    """A vector for each token: float32 [len(tokens), WIDTH], each of length 1.

    A piece of three letters picks one of 4096 random vectors by its checksum, so that similar words lie
    near each other; half of the token before it comes along as its context.
    """
    table = np.random.default_rng(0).standard_normal((4096, WIDTH))
    known: dict[str, Array] = {}
    for token in set(tokens):
        marked = f"<{token}>"
        pieces = {marked[i : i + 3] for i in range(max(1, len(marked) - 2))}
        rows = [zlib.crc32(piece.encode()) % len(table) for piece in sorted(pieces)]
        known[token] = table[rows].sum(axis=0)
    alone = np.array([known[token] for token in tokens])
    together = alone + 0.5 * np.concatenate((alone[:1], alone[:-1]))
    return (together / np.linalg.norm(together, axis=1, keepdims=True)).astype(np.float32)


def logits(x: Array, num_experts: int) -> Array:
    """A router that nobody trained: float32 [len(x), num_experts]."""
    w = np.random.default_rng(num_experts).standard_normal((num_experts, WIDTH))
    return (4 * x.astype(np.float64) @ w.T).astype(np.float32)


def make() -> dict[str, Array]:
    """The routings: for each shape uint8 [BATCHES, BATCH, k], the experts of each token."""
    x = embed(tokens_of(text())[: BATCHES * BATCH])
    return {
        name: TopK(k).route(logits(x, num_experts)).experts.astype(np.uint8).reshape(BATCHES, BATCH, k)
        for name, (num_experts, k) in SHAPES.items()
    }


def about() -> dict[str, Any]:
    """Where the routings come from."""
    return {
        "text": "pydoc_data.topics, the pages of help()",
        "sha256": hashlib.sha256(text().encode()).hexdigest(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "command": COMMAND,
    }


def recorded(path: Path = PATH) -> tuple[dict[str, Array], dict[str, Any]]:
    """The routings as they are kept, and where they come from."""
    with np.load(path) as stored:
        found = {name: stored[name] for name in SHAPES}
        return found, json.loads(str(stored["about"]))


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is stale")
    if not parser.parse_args().check:
        PATH.parent.mkdir(exist_ok=True)
        np.savez_compressed(PATH, about=json.dumps(about()), **make())  # type: ignore[arg-type]
        return 0
    stored, source = recorded()
    if source["sha256"] != about()["sha256"]:
        print(f"NOT RUN: the routings are of Python {source['python']}, whose manual is another text")
        return 0
    made = make()
    stale = [name for name in SHAPES if not np.array_equal(made[name], stored[name])]
    if stale:
        print(f"{PATH.name} is not what the text makes: run `{COMMAND}`")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
