"""A folder of transformers: its AutoModel by `architectures`, tokenizer or image processor."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from forwardpass.errors import LoadError, missing_extra
from forwardpass.loading.adapters import merged, without_adapter
from forwardpass.loading.damage import loading
from forwardpass.loading.folders import read_config
from forwardpass.loading.torchao import unheard
from forwardpass.nouns.models import Model

_TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model",
    "tokenizer.model", "sentencepiece.bpe.model",
)  # fmt: skip
_MAKES_ITS_OWN_DECODER_INPUT = re.compile(
    r"(.*Encoder(Model)?|.*For(Sequence|Token)Classification|(Bart|MBart)Model)$"
)


def from_transformers_folder(folder: Path, origin: str) -> Model:
    """The model that transformers wrote into `folder`; no code of it is run. Raises LoadError.

    What takes text and pictures together gets no `encode`: how they go together is not ours to say.
    """
    library = transformers()
    stated = read_config(folder / "config.json")
    refuse_code(folder, stated)
    architecture, network = _class(library, folder, stated)
    config = load_config(library, folder)
    if config.is_encoder_decoder and not _MAKES_ITS_OWN_DECODER_INPUT.match(architecture):
        raise LoadError(
            f"{folder} is {architecture}, an encoder-decoder: one pass needs decoder_input_ids "
            "besides the text. Give file.py:name, a Model whose encode makes both; or, to embed "
            "with its encoder, save the folder again from its encoder class, such as "
            "T5EncoderModel"
        )
    module = load_network(network, folder, config)
    encode: Any = None
    inputs: list[str] | None = None
    takes = parameters(module)
    has_text = any((folder / name).is_file() for name in _TOKENIZERS) and "input_ids" in takes
    has_pictures = (folder / "preprocessor_config.json").is_file() and "pixel_values" in takes
    if has_text and not has_pictures:
        from forwardpass.loading.text_encoders import TextEncoder

        tokenizer = load_tokenizer(library, folder)
        if getattr(module.config, "pad_token_id", None) is None:
            # Heads of decoders look for the last token that is no padding.
            module.config.pad_token_id = padding_id(tokenizer)
        limit = longest(tokenizer, config, module)
        inputs = text_inputs(tokenizer, module, limit)
        encode = TextEncoder(tokenizer, encoded_names(inputs), limit)
    elif has_pictures and not has_text:
        from forwardpass.loading.image_encoders import ImageEncoder, Processor

        encode = ImageEncoder(Processor(_image_processor(library, folder)))
        inputs = [encode.signature()]
    from forwardpass.loading.label_decoders import decoder

    return Model(
        module,
        inputs,
        encode=encode,
        decode=None if encode is None else decoder(type(module).__name__, config),
        origin=origin,
        trust="data",
    )


def transformers() -> Any:
    """The library. Raises MissingExtraError."""
    try:
        with unheard():
            import transformers as library

            library.PreTrainedModel  # noqa: B018 - the parts are imported when they are asked for
    except ImportError as error:
        raise missing_extra("transformers", "transformers", "a folder of transformers") from error
    return library


def refuse_code(folder: Path, stated: dict[str, Any]) -> None:
    """Refuse a configuration that makes transformers fetch kernels, which are machine code."""
    for key, value in stated.items():
        if isinstance(value, dict):
            refuse_code(folder, cast("dict[str, Any]", value))
        if key.endswith("_implementation") and "/" in str(value):
            raise LoadError(
                f"{folder / 'config.json'}: {key} {value!r} names code of the hub, which is never "
                "fetched; remove that line"
            )


def load_config(library: Any, folder: Path) -> Any:
    """The configuration, with caches off: one pass needs none. Raises LoadError."""
    with loading(f"the configuration in {folder}"):
        config = library.AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    config.use_cache = False
    return config


def load_network(network: Any, folder: Path, config: Any) -> Any:
    """The module with its weights, in eval mode. Raises LoadError."""

    def opened(**more: Any) -> tuple[Any, list[str]]:
        try:
            module, told = network.from_pretrained(
                base,
                config=config,
                local_files_only=True,
                weights_only=True,
                output_loading_info=True,
                **more,
            )
        except pickle.UnpicklingError as error:
            raise LoadError(
                f"the weights in {folder} are a pickle that could run code when it is opened, so "
                "they were not opened; save them again with save_pretrained, as safetensors"
            ) from error
        return module, sorted(str(name) for name in told["missing_keys"])

    with _quiet(), loading(f"the model in {folder}"), without_adapter(folder) as base:
        module, missing = opened()
        if missing and all(name.startswith("pooler.") for name in missing):
            module, missing = opened(add_pooling_layer=False)  # a random pooler would be an output
    if missing:
        raise LoadError(
            f"{folder} has no weights for "
            f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''} of {network.__name__}, "
            "which would be random; save the folder again with all its weights"
        )
    with _quiet():
        return merged(module, folder).eval()


def load_tokenizer(library: Any, folder: Path) -> Any:
    """The tokenizer of the folder. Raises LoadError."""
    with loading(f"the tokenizer in {folder}"):
        return library.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )


def padding_id(tokenizer: Any) -> int:
    """The token to pad with: the tokenizer's own, else its end of text, else 0."""
    found = tokenizer.pad_token_id
    found = tokenizer.eos_token_id if found is None else found
    return 0 if found is None else int(found)


def longest(tokenizer: Any, config: Any, module: Any) -> int | None:
    """The most tokens of a row: of tokenizer and positions the smaller; None where nothing says."""
    limits = [int(tokenizer.model_max_length)]
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions)
    limits.append(position_rows(module) or limits[0])
    least = min(limits)
    return least if least < 10**9 else None


def position_rows(module: Any) -> int | None:
    """How many positions a table holds that begins after the padding's, as RoBERTa's does."""
    for name, part in module.named_modules():
        offset = getattr(part, "padding_idx", None)
        if name.endswith("embeddings.position_embeddings") and offset is not None:
            return int(part.num_embeddings) - int(offset) - 1
    return None


def text_inputs(tokenizer: Any, module: Any, limit: int | None) -> list[str]:
    """The inputs of a model of text, in the notation."""
    takes = parameters(module)
    left = " left" if tokenizer.padding_side == "left" else ""
    tokens = "tokens" if limit is None else f"tokens=1..{limit}"
    found = [f"input_ids: i64[batch {tokens}] pad {padding_id(tokenizer)}{left}"]
    if "attention_mask" in takes:
        found.append("attention_mask: i64[batch tokens] = valid(tokens)")
    if "token_type_ids" in takes and "token_type_ids" in tokenizer.model_input_names:
        found.append(f"token_type_ids?: i64[batch tokens] pad {tokenizer.pad_token_type_id}{left}")
    if left and "position_ids" in takes:
        found.append("position_ids: i64[batch tokens] = positions(tokens)")
    return found


def encoded_names(inputs: list[str]) -> list[str]:
    """Which of these inputs the tokenizer makes; the others follow from lengths."""
    return [line.split(":")[0].rstrip("?") for line in inputs if " = " not in line]


def parameters(module: Any) -> set[str]:
    """The names that forward takes."""
    return set(inspect.signature(module.forward).parameters)


def _class(library: Any, folder: Path, stated: dict[str, Any]) -> tuple[str, Any]:
    """The class by `architectures`, else AutoModel's. Raises LoadError for remote code."""
    names = stated.get("architectures") or []
    for name in names:
        found = getattr(library, str(name), None)
        if isinstance(found, type) and issubclass(found, library.PreTrainedModel):
            return str(name), found
    known = stated.get("model_type") in library.CONFIG_MAPPING
    if stated.get("auto_map") and (names or not known):
        raise LoadError(
            f"{folder} is {', '.join(map(str, names)) or 'a model'} of its own code "
            f"({', '.join(map(str, stated['auto_map'].values()))}), and code that comes with "
            "weights is never run. If you trust it, import the class in a file.py, load the "
            "weights there, and give file.py:name"
        )
    if not known:
        raise LoadError(
            f"{folder / 'config.json'}: transformers {library.__version__} does not know the "
            f"model_type {stated.get('model_type')!r}"
        )
    config = library.CONFIG_MAPPING[stated["model_type"]]
    mapped = library.MODEL_MAPPING.get(config, None)
    if mapped is None:
        raise LoadError(
            f"transformers has no base model for the model_type {stated['model_type']!r}"
        )
    base = mapped[0] if isinstance(mapped, (tuple, list)) else mapped
    return base.__name__, base


def _image_processor(library: Any, folder: Path) -> Any:
    import importlib.util

    if importlib.util.find_spec("PIL") is None:
        raise missing_extra("pillow", "images", f"the pictures of {folder}")
    with loading(f"the image processor in {folder}"):
        return library.AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=False, local_files_only=True
        )


@contextmanager
def _quiet() -> Generator[None]:
    """No progress bars and reports of transformers while weights are read: we report ourselves."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
