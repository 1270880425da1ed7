"""Text in, token ids out: what a folder with a tokenizer gives a Model as `encode`."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from forwardpass.errors import DataError
from forwardpass.nouns.models import Encoded
from forwardpass.nouns.rows import Rows

Pair = tuple[str, str]
_TOKENIZER = "tokenizer.json"
_TRIED = (
    "", " ", "A plain sentence, with 3 numbers: 1.5, 20 and 1,000.", "ÀÉî ñ ß ç", "日本語の文",
    "привет мир", "👩‍👩‍👧 🎉", "a\tb\nc\u00a0d", "don't [MASK] </s> <unk> it's", "x" * 300,
)  # fmt: skip
"""Texts on which two tokenizers are compared: scripts, spaces, marks, and what looks special."""


class TextEncoder:
    """Rows of text → token ids without padding; rows that are too long are cut and said to be.

    Takes the column `text`, with `text_pair` if both are there, else the only column of text.

    Args:
        tokenizer: a tokenizer of transformers.
        inputs: the tokenizer's outputs that the model takes: `input_ids`, `token_type_ids`.
        max_tokens: the longest row that the model takes, special tokens included; None for any.
        prompt: what is put before each text.
        pairs: whether two texts belong to a row: `text` and `text_pair`, else the only two columns
            of text, in their order.
    """

    text_columns = ("text", "text_pair")
    """What is read as text even where it looks like numbers; see Model."""

    def __init__(
        self,
        tokenizer: Any,
        inputs: Iterable[str],
        max_tokens: int | None,
        prompt: str = "",
        *,
        pairs: bool = False,
    ) -> None:
        self.pairs = pairs
        self.tokenizer = tokenizer
        self.inputs = tuple(inputs)
        self.max_tokens = max_tokens
        self.prompt = prompt
        # A fast tokenizer keeps truncation as state, so that two threads at once would mix it up.
        self._lock = threading.Lock()

    @classmethod
    def of(cls, description: dict[str, Any], folder: Path) -> TextEncoder:
        """What `described` wrote. Raises LoadError."""
        from forwardpass.loading.fast_tokens import FastTokens

        return cls(
            FastTokens(folder / _TOKENIZER), description["inputs"], description["max_tokens"],
            description["prompt"], pairs=description["pairs"],
        )  # fmt: skip

    def described(self, folder: Path) -> dict[str, Any] | None:
        """This encoder as data, the tokenizer in `folder`; None where that is not the same.

        Some tokenizers do in Python what their file does not say, so texts are tried.
        """
        from forwardpass.loading.fast_tokens import FastTokens

        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        if fast is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _TOKENIZER).write_text(fast.to_str(), encoding="utf-8")
        same = TextEncoder(
            FastTokens(folder / _TOKENIZER), self.inputs, self.max_tokens, self.prompt,
            pairs=self.pairs,
        )  # fmt: skip
        texts = [*_TRIED, " ".join(_TRIED * (self.max_tokens or 8))]
        pairs = texts[::-1] if self.pairs else None
        for cut in (False, True):
            if self._tokens(texts, pairs, cut=cut) != same._tokens(texts, pairs, cut=cut):
                (folder / _TOKENIZER).unlink()
                return None
        return {
            "kind": "text", "inputs": list(self.inputs), "max_tokens": self.max_tokens,
            "prompt": self.prompt, "pairs": self.pairs,
        }  # fmt: skip

    def __call__(self, rows: Rows) -> Encoded:
        """Token ids, one int64 array [tokens] a row and input. TypeError for what is no text."""
        texts, pairs = self._texts(rows)
        if not texts:
            return Encoded({name: [] for name in self.inputs})
        with self._lock:
            whole = self._tokens(texts, pairs, cut=False)
            limit = self.max_tokens
            long = (
                []
                if limit is None
                else [i for i, ids in enumerate(whole["input_ids"]) if len(ids) > limit]
            )
            if long:
                some_pairs = None if pairs is None else [pairs[i] for i in long]
                cut = self._tokens([texts[i] for i in long], some_pairs, cut=True)
                for name in self.inputs:
                    for place, index in enumerate(long):
                        whole[name][index] = cut[name][place]
        arrays = {
            name: [np.array(ids, dtype=np.int64) for ids in whole[name]] for name in self.inputs
        }
        return Encoded(arrays, truncated=long)

    def _tokens(
        self, texts: list[str], pairs: list[str] | None, *, cut: bool
    ) -> dict[str, list[Any]]:
        limits: dict[str, Any] = {"truncation": True, "max_length": self.max_tokens} if cut else {}
        found = self.tokenizer(
            texts,
            pairs,
            add_special_tokens=True,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids="token_type_ids" in self.inputs,
            verbose=False,  # it warns of rows that are too long, which are cut right after
            **limits,
        )
        return {name: found[name] for name in dict.fromkeys(["input_ids", *self.inputs])}

    def _texts(self, rows: Rows) -> tuple[list[str], list[str] | None]:
        names = self._columns(rows)
        texts = _strings(rows[names[0]], names[0])
        pairs = _strings(rows[names[1]], names[1]) if len(names) > 1 else None
        if self.prompt:
            texts = [self.prompt + text for text in texts]
        return texts, pairs

    def _columns(self, rows: Rows) -> list[str]:
        named = [name for name in ("text", "text_pair") if name in rows]
        if (not self.pairs and "text" in named) or len(named) == 2:
            return named
        found = [name for name in rows.columns if _is_text(rows[name])]
        if len(found) == (2 if self.pairs else 1):
            return found
        wanted = (
            "two columns of text, called `text` and `text_pair` where there are others"
            if self.pairs
            else "one column of text, called `text` where there are several"
        )
        raise DataError(
            f"this model takes {wanted}; the columns are {', '.join(rows.columns) or 'none'}"
        )


def _strings(column: Any, name: str) -> list[str]:
    texts = column.tolist() if isinstance(column, np.ndarray) else list(column)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(
                f"column {name!r}: {_shown(text)} is {type(text).__name__}, expected text"
            )
    return texts


def _is_text(column: Any) -> bool:
    first = next((value for value in column if value is not None), None) if len(column) else None
    return isinstance(first, str)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
