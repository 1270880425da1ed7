"""`POST /v1/embeddings` and `GET /v1/models`, as clients of OpenAI send them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta

from forwardpass.nouns.signatures import Output
from forwardpass.serving.asking import Answered, Inquiry, Service
from forwardpass.serving.bounded_lists import TOO_LONG, elements, list_of
from forwardpass.serving.exchanges import Exchange, RefusedError, Reply, Route
from forwardpass.serving.json_rows import not_json, placed
from forwardpass.serving.messages import About
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.protocols.rows import chosen, ready
from forwardpass.serving.schemas import operation


class _Tokens(msgspec.Struct, array_like=True):
    """A text that comes as its tokens, which are not read."""


class EmbeddingsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request.

    Attributes:
        input: a text, or a `list_of` texts and of what is none.
        encoding_format: "base64" is what the clients ask for: float32, little-endian.
        dimensions: has to be what the model gives.
        user: is not looked at.
    """

    input: Any
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None


_REAL: Final = ("f64", "f32", "f16", "bf16")
_encode = msgspec.json.Encoder().encode


def routes(services: Mapping[str, Service], options: ServeOptions) -> Sequence[Route]:
    """Embeddings, the list of models, and one of them."""
    most = options.limits.request_rows
    texts_asked = ("input", str | list_of(str | int | _Tokens, most))
    decoder = msgspec.json.Decoder(
        msgspec.defstruct(
            "EmbeddingsAsked", [texts_asked], bases=(EmbeddingsAsked,), kw_only=True,
            forbid_unknown_fields=True,
        )
    )  # fmt: skip

    async def embed(exchange: Exchange) -> Reply:
        asked = _asked(decoder, exchange.body, most)
        service = _service(services, asked.model)
        width = _width(service.name, ready(service))
        if asked.dimensions not in (None, width):
            said = f"dimensions: {service.name} gives {width}, not {asked.dimensions}; leave it out"
            raise RefusedError(400, said)
        texts = _texts(asked.input)
        answered = await service.ask(
            Inquiry(len(texts), texts, None, False, len(exchange.body), exchange)
        )
        return Reply(200, _reply(service.name, answered, asked.encoding_format))

    async def listed(exchange: Exchange) -> Reply:
        return Reply(200, _encode({"object": "list", "data": [_model(name) for name in services]}))

    async def described(exchange: Exchange) -> Reply:
        return Reply(200, _encode(_model(chosen(services, exchange.parts["name"]).name)))

    return [
        Route("POST", "/v1/embeddings", embed),
        Route("GET", "/v1/models", listed),
        Route("GET", "/v1/models/{name}", described),
    ]


def paths(services: Mapping[str, Service], options: ServeOptions) -> Mapping[str, Any]:
    """As clients of OpenAI know them; embeddings where a model gives some."""
    told = dict[str, Any]
    found: dict[str, Any] = {"/v1/models": {"get": operation("What is served", told)}}
    names = [name for name, service in services.items() if _embeds(service)]
    if names:
        model: Any = Literal[tuple(names)]
        body = msgspec.defstruct(
            "Embeddings",
            [
                ("input", str | Annotated[list[str], Meta(min_length=1)]),
                ("model", model, *([names[0]] if len(services) == 1 else [])),
                ("encoding_format", Literal["float", "base64"], "float"),
                ("user", str | None, None),
            ],
            forbid_unknown_fields=True,
            kw_only=True,
        )
        example = {"input": ["a text"], "model": names[0]}
        embed = operation("Embeddings of texts", told, body, example, told)
        found["/v1/embeddings"] = {"post": embed}
    return found


def errors(error: RefusedError) -> Reply:
    """A refusal as these clients read it."""
    kinds = {404: "not_found_error", 429: "rate_limit_error", 401: "authentication_error"}
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    param = None if error.row is None else f"input[{error.row}]"
    told = {
        "message": str(error),
        "type": kinds.get(error.status, kind),
        "param": "model" if error.status == 404 else param,
        "code": "model_not_found" if error.status == 404 else error.reason,
    }
    return Reply(error.status, _encode({"error": told}))


def _asked(decoder: msgspec.json.Decoder[Any], body: bytes, most: int) -> EmbeddingsAsked:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        if str(error).startswith(TOO_LONG):
            said = f"more than {most:,} texts, as many as a request may hold: ask twice"
            raise RefusedError(413, said) from None
        _, where, said = placed(error, body)
        raise RefusedError(400, f"{where.removeprefix('.') or 'the body'}: {said}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(error, body) from error


def _service(services: Mapping[str, Service], name: str | None) -> Service:
    """The model of that name; where none is given, the only one that is served."""
    if name is None and len(services) != 1:
        raise RefusedError(400, f"model: say which of {', '.join(sorted(services))}")
    return chosen(services, next(iter(services)) if name is None else name)


def _texts(given: Any) -> list[str]:
    texts: list[Any] = [given] if isinstance(given, str) else elements(given)
    if not texts:
        raise RefusedError(400, "input: an empty list; send a text, or a list of texts")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise RefusedError(
                400,
                f"input[{place}]: a token is not what this model takes, it has a tokenizer of its "
                "own: send texts (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
                row=place,
            )
    return [text for text in texts if isinstance(text, str)]


def _width(name: str, about: About) -> int:
    """Numbers of the one vector that the model gives for a text. Raises RefusedError, 400."""
    if not about.encodes:
        takes = "; ".join(about.inputs)
        raise RefusedError(400, f"{name} takes no text but {takes}: ask POST /models/{name}")
    outputs = [Output.parse(line) for line in about.outputs]
    vector = outputs[0] if len(outputs) == 1 else None
    inner = [] if vector is None else [e for e in vector.extents if e.name != "batch"]
    if vector is None or len(inner) != 1 or inner[0].name or vector.dtype not in _REAL:
        gives = "; ".join(about.outputs) or "what its uncollate makes"
        raise RefusedError(
            400, f"{name} gives no embedding, which is one vector a row, but {gives}: ask "
            f"POST /models/{name}"
        )  # fmt: skip
    return inner[0].size


def _embeds(service: Service) -> bool:
    try:
        return service.about is not None and _width(service.name, service.about) > 0
    except RefusedError:
        return False


def _reply(name: str, answered: Answered, form: str) -> bytes:
    (vectors,) = answered.outputs.values()
    rows = np.ascontiguousarray(np.asarray(vectors), "<f4")
    each: list[Any] = (
        [base64.b64encode(row).decode("ascii") for row in rows]
        if form == "base64"
        else rows.tolist()
    )
    data = [{"object": "embedding", "index": n, "embedding": one} for n, one in enumerate(each)]
    # of a model without an axis along which texts differ, or with several, nobody counts tokens
    tokens = sum(sizes[0] for sizes in answered.sizes if len(sizes) == 1)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    told: dict[str, Any] = {"object": "list", "data": data, "model": name, "usage": usage}
    if answered.truncated:  # of ours: theirs has no word for it
        told["truncated"] = answered.truncated
    return _encode(told)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "forwardpass"}
