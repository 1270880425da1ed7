"""The tokenizer of a `tokenizer.json`, called as those of transformers are; needs neither that
library nor PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forwardpass.errors import LoadError, contained, missing_extra, said


class FastTokens:
    """A tokenizer of the library `tokenizers`.

    Args:
        path: of a `tokenizer.json`.
    """

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise missing_extra("tokenizers", "text", "an artefact that takes text") from error
        try:
            with contained():
                self.backend_tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as error:
            raise LoadError(f"{path} is no tokenizer: {said(error)}") from error
        self.backend_tokenizer.no_padding()

    def __call__(
        self, texts: list[str], pairs: list[str] | None, *,
        truncation: bool = False, max_length: int | None = None, **_: Any,
    ) -> dict[str, list[list[int]]]:  # fmt: skip
        """Token ids and types of each text, or pair of texts, special tokens included."""
        if truncation and max_length is not None:
            self.backend_tokenizer.enable_truncation(max_length)
        else:
            self.backend_tokenizer.no_truncation()
        rows: list[Any] = texts if pairs is None else list(zip(texts, pairs, strict=True))
        found = self.backend_tokenizer.encode_batch(rows)
        return {
            "input_ids": [row.ids for row in found],
            "token_type_ids": [row.type_ids for row in found],
        }
