"""The layers of a sentence encoder: token vectors in, one vector a text out.

They compute what sentence-transformers computes, as plain modules that take and return tensors, so
that they can be exported and compiled. Their parameters have the names of its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import nn

MODES: Final = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_LEAST_WEIGHT: Final = 1e-9


class SentenceEncoder(nn.Module):
    """A transformer, a pooling, and what follows them.

    Args:
        transformer: a module whose output has `last_hidden_state` [batch tokens width].
        pooling: its Pooling.
        layers: what follows, each [batch width] → [batch width'].
    """

    def __init__(
        self, transformer: nn.Module, pooling: Pooling, layers: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling = pooling
        self.layers = nn.Sequential(*layers)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """`sentence_embedding` [batch width], float32, of ids and mask [batch tokens]."""
        more = {"token_type_ids": token_type_ids, "position_ids": position_ids}
        tokens: Any = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            **{name: value for name, value in more.items() if value is not None},
        )
        pooled = self.pooling(tokens.last_hidden_state, attention_mask)
        return {"sentence_embedding": self.layers(pooled).float()}


class Pooling(nn.Module):
    """Vectors of tokens [batch tokens width] → one a text [batch modes*width], padding left out.

    Args:
        modes: names of MODES; several are concatenated in this order.
        prompt_tokens: how many tokens at the beginning of each text count for nothing.
    """

    def __init__(self, modes: Sequence[str], prompt_tokens: int = 0) -> None:
        super().__init__()
        self.modes = tuple(modes)
        self.prompt_tokens = prompt_tokens

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # Sums of half-precision values are taken in single precision.
        place = mask.to(torch.int64).cumsum(1)  # 1, 2, … at the tokens of a text, on either side
        counted = mask.bool() & (place > self.prompt_tokens)
        return torch.cat(
            [self._pooled(mode, tokens, counted, place) for mode in self.modes], dim=-1
        )

    def _pooled(
        self, mode: str, tokens: torch.Tensor, counted: torch.Tensor, place: torch.Tensor
    ) -> torch.Tensor:
        wide = tokens.float() if tokens.dtype in (torch.float16, torch.bfloat16) else tokens
        if mode == "cls":
            return _at(tokens, counted.to(torch.int32).argmax(1))
        if mode == "lasttoken":
            positions = torch.arange(tokens.shape[1], device=tokens.device)
            return _at(tokens, torch.where(counted, positions, 0).argmax(1))
        if mode == "max":
            return tokens.masked_fill(~counted.unsqueeze(-1), float("-inf")).amax(1)
        weights = counted.to(wide.dtype)
        if mode == "weightedmean":
            weights = weights * place.to(wide.dtype)
        total = (wide * weights.unsqueeze(-1)).sum(1)
        count = weights.sum(1, keepdim=True).clamp(min=_LEAST_WEIGHT)
        if mode == "mean_sqrt_len_tokens":
            count = count.sqrt()
        return (total / count).to(tokens.dtype)


class Normalize(nn.Module):
    """Vectors of length 1, computed in single precision."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(vectors.float(), p=2, dim=-1).to(vectors.dtype)


class Dense(nn.Module):
    """activation(W·x + b), plus x (or a projection of x) where it is residual."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: nn.Module,
        *,
        bias: bool,
        residual: bool,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation_function = activation
        self.adds_input = residual
        self.residual: nn.Module = (
            nn.Linear(in_features, out_features, bias=False)
            if residual and in_features != out_features
            else nn.Identity()
        )

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        made = self.activation_function(self.linear(vectors))
        return made + self.residual(vectors) if self.adds_input else made


class LayerNorm(nn.Module):
    """Layer normalisation over the width."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.norm(vectors)


def _at(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The token at `index` [batch] of each text."""
    where = index.to(torch.int64)[:, None, None].expand(-1, 1, tokens.shape[-1])
    return tokens.gather(1, where).squeeze(1)
