"""Cross-encoders of sentence-transformers: two texts in, a score out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from forwardpass.errors import LoadError
from forwardpass.loading.folders import read_config
from forwardpass.loading.label_decoders import Score
from forwardpass.loading.sentence_encoders import (
    activation,
    layers_of,
    longest_stated,
    lower_case,
    prompt_of,
    stated_of,
    transformer_config,
)  # fmt: skip
from forwardpass.loading.text_encoders import TextEncoder
from forwardpass.loading.transformers_folders import (
    encoded_names,
    from_transformers_folder,
    text_inputs,
)  # fmt: skip
from forwardpass.nouns.models import Model

_PLAIN = {"transformer_task": "sequence-classification", "module_output_name": "scores"}
_PLAIN_TEXT = {"method": "forward", "method_output_name": "logits"}
_OLD_KEY = "sbert_ce_default_activation_function"


def is_cross_encoder(folder: Path) -> bool:
    """Whether sentence-transformers wrote a cross-encoder there: it notes that in one of two files.

    Versions before 6 write a folder of transformers, with the activation in its config.json.
    """
    if (folder / "modules.json").is_file():
        stated = read_config(folder / "config_sentence_transformers.json")
        return stated.get("model_type") == "CrossEncoder"
    return _in_config(folder) is not None


def from_cross_encoder(folder: Path, origin: str) -> Model:
    """The cross-encoder in `folder`, with its stored activation. Raises LoadError."""
    home, stated, named, prompt = folder, dict[str, Any](), _in_config(folder), ""
    if (folder / "modules.json").is_file():
        if stated_of(folder).get("transformer_task") == "text-generation":
            raise LoadError(
                f"{folder} is a cross-encoder on a language model: its pairs go through a chat "
                "template, and what the model answers is the score. Load it in a file.py with "
                "sentence_transformers, and give file.py:model; docs/models.md shows that file "
                "under 'A reranker on a language model'"
            )
        layers = layers_of(folder)
        if [kind for kind, _ in layers] != ["Transformer"]:
            raise LoadError(
                f"{folder / 'modules.json'} is {' → '.join(kind for kind, _ in layers)}; of "
                "cross-encoders only a Transformer with a classifier is known. Give file.py:name"
            )
        home = layers[0][1]
        stated = transformer_config(home, _PLAIN, _PLAIN_TEXT)
        named = read_config(folder / "config_sentence_transformers.json").get("activation_fn")
        prompt = prompt_of(folder)
    model = from_transformers_folder(home, origin)
    if not isinstance(model.encode, TextEncoder) or not type(model.module).__name__.endswith(
        "ForSequenceClassification"
    ):
        raise LoadError(
            f"{folder} is a cross-encoder, and its {type(model.module).__name__} scores no text: "
            "expected a tokenizer and a class …ForSequenceClassification"
        )
    tokenizer = model.encode.tokenizer
    if stated.get("do_lower_case"):
        lower_case(tokenizer)
    limit = longest_stated(stated) or model.encode.max_tokens
    inputs = text_inputs(tokenizer, model.module, limit)
    config: Any = model.module.config
    function: nn.Module = nn.Sigmoid() if config.num_labels == 1 else nn.Identity()
    if named is not None:
        function = activation(home, str(named))
    return Model(
        model.module,
        inputs,
        encode=TextEncoder(tokenizer, encoded_names(inputs), limit, prompt, pairs=True),
        decode=Score(function),
        origin=origin,
        trust="data",
    )


def _in_config(folder: Path) -> Any:
    """The activation that config.json names: under one key before version 4, another since."""
    config = read_config(folder / "config.json")
    own = config.get("sentence_transformers")
    newer = own.get("activation_fn") if isinstance(own, dict) else None
    return newer if newer is not None else config.get(_OLD_KEY)
