"""A folder of sentence-transformers: its transformer, pooling and layers, without the library."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from forwardpass.errors import LoadError, nearest
from forwardpass.loading.damage import require_content
from forwardpass.loading.folders import read_config, read_json
from forwardpass.loading.pickles import UnsafePickleError, opened
from forwardpass.loading.pooling import MODES, Dense, LayerNorm, Normalize, Pooling, SentenceEncoder
from forwardpass.loading.text_encoders import TextEncoder
from forwardpass.loading.transformers_folders import (
    encoded_names,
    load_config,
    load_network,
    load_tokenizer,
    longest,
    refuse_code,
    text_inputs,
    transformers,
)
from forwardpass.nouns.models import Model

_KINDS = ("Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout")
_LEGACY_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# What older and newer files may say besides, with the only values that this file computes.
_PLAIN = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "model_args": {}, "tokenizer_args": {}, "config_args": {},
    "model_kwargs": {}, "processor_kwargs": {}, "config_kwargs": {}, "processing_kwargs": {},
    "query_expansion": None,
}  # fmt: skip
_PLAIN_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}


def from_sentence_folder(folder: Path, origin: str) -> Model:
    """The sentence encoder in `folder`. Raises LoadError naming a layer that it does not know."""
    library = transformers()
    parts = layers_of(folder)
    kinds = [kind for kind, _ in parts]
    if (
        kinds[:2] != ["Transformer", "Pooling"]
        or kinds.count("Transformer") + kinds.count("Pooling") > 2
    ):
        raise LoadError(
            f"{folder / 'modules.json'} is {' → '.join(kinds)}; expected Transformer → Pooling "
            "first, then layers on the pooled vectors"
        )
    home = parts[0][1]
    stated = transformer_config(home, _PLAIN, _PLAIN_TEXT)
    config = _network_config(library, home)
    network = load_network(_encoder_class(library, home, config), home, config)
    tokenizer = load_tokenizer(library, home)
    limit = longest_stated(stated) or longest(tokenizer, config, network)
    if stated.get("do_lower_case"):
        lower_case(tokenizer)
    prompt = prompt_of(folder)
    lines = text_inputs(tokenizer, network, limit)
    encode = TextEncoder(tokenizer, encoded_names(lines), limit, prompt)
    layers = [_layer(kind, place) for kind, place in parts[2:] if kind != "Dropout"]
    pooling = _pooling(parts[1][1], _prompt_tokens(tokenizer, limit, prompt))
    width = int(network.config.hidden_size) * len(pooling.modes)
    for layer in layers:
        if isinstance(layer, Dense):
            width = int(layer.linear.out_features)
    module = SentenceEncoder(network, pooling, layers).eval()
    output = f"sentence_embedding: f32[batch {width}]"
    if not any(line.startswith("attention_mask") for line in lines):
        lines.append("attention_mask: i64[batch tokens] = valid(tokens)")
    return Model(module, lines, output, encode=encode, origin=origin, trust="data")


def layers_of(folder: Path) -> list[tuple[str, Path]]:
    """The kind of each layer and the folder it lies in, in the order of computing."""
    entries = read_json(folder / "modules.json")
    parts: list[tuple[str, Path]] = []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LoadError(
            f"{folder / 'modules.json'} is not what sentence-transformers writes: expected a list "
            "of layers, each an object with type and path"
        )
    for entry in cast("list[dict[str, Any]]", entries):
        name = str(entry.get("type", ""))
        kind = name.rpartition(".")[2]
        if not name.startswith("sentence_transformers.") or kind not in _KINDS:
            raise LoadError(
                f"{folder / 'modules.json'}: unknown layer {name!r}; {nearest(kind, _KINDS)}. "
                "Build it in a file.py with sentence_transformers, and give file.py:name"
            )
        place = (folder / str(entry.get("path", ""))).resolve()
        if not place.is_relative_to(folder.resolve()):
            raise LoadError(
                f"{folder / 'modules.json'}: the path {entry.get('path')!r} leads out of the folder"
            )
        parts.append((kind, place))
    if not parts:
        raise LoadError(f"{folder / 'modules.json'} lists no layers")
    return parts


def _stated_in(home: Path) -> Path | None:
    return next((home / name for name in _TRANSFORMER_CONFIGS if (home / name).is_file()), None)


def stated_of(home: Path) -> dict[str, Any]:
    """What sentence-transformers states about the transformer in a folder."""
    path = _stated_in(home)
    return {} if path is None else read_config(path)


def transformer_config(
    home: Path, only: dict[str, Any], only_text: dict[str, str]
) -> dict[str, Any]:
    """What is stated about the transformer, whose task and output must be `only` these.

    Raises LoadError for what is not plain text.
    """
    path = _stated_in(home)
    stated = stated_of(home)
    for key, plain in {**_PLAIN, **only}.items():
        value = stated.get(key, plain)
        if value != plain and value is not None:
            raise LoadError(
                f"{path}: {key} is {value!r}, which is not supported; expected {plain!r}"
            )
    modalities = stated.get("modality_config", {"text": only_text})
    if "message" in modalities or modalities.get("text") != only_text:
        raise LoadError(
            f"{path}: this model takes {', '.join(map(str, modalities))} by "
            f"{modalities.get('text')}; only plain text through forward is supported"
        )
    return stated


def _network_config(library: Any, home: Path) -> Any:
    stated = read_config(home / "config.json")
    if not stated:
        raise LoadError(f"{home} has no config.json, so its transformer cannot be built")
    refuse_code(home, stated)
    if stated.get("auto_map") and stated.get("model_type") not in library.CONFIG_MAPPING:
        raise LoadError(
            f"{home} needs code of its own ({', '.join(map(str, stated['auto_map'].values()))}), "
            "and code that comes with weights is never run. If you trust it, import the class in "
            "a file.py"
        )
    return load_config(library, home)


def _encoder_class(library: Any, home: Path, config: Any) -> Any:
    """The base model; where there are encoder and decoder, the encoder alone."""
    encoder = library.MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None)
    if encoder is not None and encoder.__name__.endswith("EncoderModel"):
        return encoder
    base = library.MODEL_MAPPING.get(type(config), None)
    if base is None or config.is_encoder_decoder:
        raise LoadError(
            f"{home}: transformers has no encoder of text for the model_type {config.model_type!r}"
        )
    return base[0] if isinstance(base, (tuple, list)) else base


def longest_stated(stated: dict[str, Any]) -> int | None:
    """The max_seq_length, where one is stated. Raises LoadError for what is no number of tokens."""
    length = stated.get("max_seq_length")
    if length is not None and (type(length) is not int or length < 1):
        raise LoadError(f"max_seq_length is {length!r}; expected a whole number of tokens")
    return length


def lower_case(tokenizer: Any) -> None:
    """Make the tokenizer lower its text, special tokens excepted."""
    from tokenizers import normalizers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        tokenizer.do_lower_case = True
        return
    present = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *present])


def prompt_of(folder: Path) -> str:
    """The text that sentence-transformers puts before each text by default."""
    stated = read_config(folder / "config_sentence_transformers.json")
    name = stated.get("default_prompt_name")
    if name is None:
        return ""
    prompts = stated.get("prompts") or {}
    if name not in prompts:
        raise LoadError(
            f"{folder / 'config_sentence_transformers.json'}: default_prompt_name {name!r} is "
            f"none of the prompts; {nearest(str(name), prompts)}"
        )
    return str(prompts[name])


def _prompt_tokens(tokenizer: Any, limit: int | None, prompt: str) -> int:
    """How many tokens the prompt takes, without the special token at the end."""
    if not prompt:
        return 0
    cut: dict[str, Any] = {} if limit is None else {"truncation": True, "max_length": limit}
    ids = tokenizer(prompt, padding=False, **cut)["input_ids"]
    return len(ids) - (1 if ids and ids[-1] in tokenizer.all_special_ids else 0)


def _pooling(place: Path, prompt_tokens: int) -> Pooling:
    stated = read_config(place / "config.json")
    modes = stated.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY_MODES.items() if stated.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    for mode in modes:
        if mode not in MODES:
            raise LoadError(
                f"{place / 'config.json'}: unknown pooling {mode!r}; {nearest(str(mode), MODES)}"
            )
    return Pooling(modes, 0 if stated.get("include_prompt", True) else prompt_tokens)


def _layer(kind: str, place: Path) -> nn.Module:
    """A layer on pooled vectors, with its weights. Raises LoadError."""
    stated = read_config(place / "config.json")
    for key in ("module_input_name", "module_output_name"):
        if stated.get(key) not in (None, "sentence_embedding"):
            raise LoadError(
                f"{place / 'config.json'}: {key} {stated[key]!r}; only sentence_embedding is known"
            )
    if kind == "Normalize":
        return Normalize()
    if kind == "LayerNorm":
        with torch.device("meta"):
            layer = LayerNorm(_size(stated, "dimension", place))
        return _filled(layer, place)
    function = activation(
        place, str(stated.get("activation_function", "torch.nn.modules.activation.Tanh"))
    )
    with torch.device("meta"):  # the sizes are what the file says, and may be absurd
        layer = Dense(
            _size(stated, "in_features", place),
            _size(stated, "out_features", place),
            function,
            bias=bool(stated.get("bias", True)),
            residual=bool(stated.get("use_residual", False)),
        )
    return _filled(layer, place)


def _size(stated: dict[str, Any], key: str, place: Path) -> int:
    size = stated.get(key)
    if type(size) is not int or size < 1:
        raise LoadError(f"{place / 'config.json'}: {key} is {size!r}; expected a whole number")
    return size


def activation(place: Path, name: str) -> nn.Module:
    """The activation of PyTorch that a configuration names; nothing else is imported."""
    found = getattr(nn, name.rpartition(".")[2], None) if name.startswith("torch.nn.") else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)) or _required(found):
        raise LoadError(
            f"{place / 'config.json'}: the activation {name!r} is none of torch.nn without "
            "arguments; build the model in a file.py, and give file.py:name"
        )
    return found()


def _required(layer: type[nn.Module]) -> list[str]:
    parameters = list(inspect.signature(layer.__init__).parameters.values())[1:]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]


def _filled(layer: nn.Module, place: Path) -> nn.Module:
    from safetensors.torch import load_file

    for name in ("model.safetensors", "pytorch_model.bin"):
        if (place / name).is_file():
            require_content(place / name)
    if (place / "model.safetensors").is_file():
        weights = load_file(place / "model.safetensors")
    elif (place / "pytorch_model.bin").is_file():
        try:
            weights = opened(place / "pytorch_model.bin", "cpu")
        except UnsafePickleError as error:
            raise LoadError(
                f"{place / 'pytorch_model.bin'} is a pickle that holds more than tensors, so it "
                "was not opened; save the layer's weights as model.safetensors"
            ) from error
    else:
        raise LoadError(f"{place} has neither model.safetensors nor pytorch_model.bin")
    try:
        layer.load_state_dict(weights, assign=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise LoadError(f"the weights in {place} do not fit its config.json: {error}") from error
    return layer.eval()
