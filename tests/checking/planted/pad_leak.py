"""Models that see their padding, and the same models that do not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import models
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass import Forward, Model
from forwardpass.executing.examples import drawn
from planted import Case

Built = tuple[Any, Any]
IDS = "ids: i64[batch tokens=1..64] pad 0"
MASKED = [IDS, "mask: i64[batch tokens] = valid(tokens)"]
LONG = [IDS, "lengths: i64[batch] = length(tokens)"]


class Pooled(nn.Module):
    """The mean of the tokens: of all, or of the valid ones."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.embed, self.head = nn.Embedding(50, 16), nn.Linear(16, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = torch.tanh(self.embed(ids))
        if self.masked:
            weight = mask[..., None].to(h.dtype)
            return self.head((h * weight).sum(1) / weight.sum(1))
        return self.head(h.mean(1))  # the mean of all


class Largest(nn.Module):
    """The maximum over tokens, of which a trained network has some above zero everywhere."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.embed, self.head = nn.Embedding(50, 16), nn.Linear(16, 4)
        with torch.no_grad():
            self.embed.weight[0] += 2

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.embed(ids)
        if self.masked:
            h = h.masked_fill(mask[..., None] == 0, -1e4)
        return self.head(h.amax(1))  # the largest of all


class Attentive(nn.Module):
    """Own attention; the mask is left out, added too weakly, turned round, or right."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.embed, self.qkv, self.head = nn.Embedding(50, 16), nn.Linear(16, 48), nn.Linear(16, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.embed(ids)).chunk(3, -1)
        scores = q @ k.transpose(1, 2) / 4
        if self.kind == "weak":
            scores = scores - (1 - mask[:, None]).to(scores.dtype)
        if self.kind == "turned":
            scores = scores.masked_fill(mask[:, None] == 1, -1e4)
        if self.kind == "right":
            scores = scores.masked_fill(mask[:, None] == 0, -1e4)
        return self.head(scores.softmax(-1) @ v)  # what all cells share


class Encoder(nn.Module):
    """PyTorch's encoder, with the mask or without."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.embed = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids: Tensor, padding_mask: Tensor) -> Tensor:
        hidden = padding_mask if self.masked else None
        h = self.encoder(self.embed(ids), src_key_padding_mask=hidden)  # the encoder
        return h[:, 0]


class Recurrent(nn.Module):
    """The last step of a GRU: of the padded row, or of the real one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.embed = nn.Embedding(50, 8)
        self.gru, self.head = nn.GRU(8, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        x = self.embed(ids)
        if self.kind == "packed":
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
            return self.head(self.gru(x)[1][-1])
        out, last = self.gru(x)  # over padding, too
        if self.kind == "gathered":
            return self.head(out[torch.arange(len(out)), lengths - 1])
        return self.head(last[-1])


class Convolved(nn.Module):
    """Averages over time: of all samples, or of the real ones."""

    def __init__(self, counted: bool) -> None:
        super().__init__()
        self.counted = counted
        self.conv, self.head = nn.Conv1d(2, 8, 1), nn.Linear(8, 4)

    def forward(self, signal: Tensor, lengths: Tensor) -> Tensor:
        h = F.relu(self.conv(signal))
        if not self.counted:
            return self.head(h.mean(-1))  # the average
        real = (torch.arange(signal.shape[-1]) < lengths[:, None])[:, None]
        return self.head((h * real).sum(-1) / lengths[:, None])


class Told(nn.Module):
    """What is real is told by an input of any name: ones and zeros of any kind, or a count."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.embed, self.head = nn.Embedding(50, 16), nn.Linear(16, 4)

    def forward(self, tokens: Tensor, r: Tensor) -> Tensor:
        real = torch.arange(tokens.shape[1]) < r[:, None] if r.dim() == 1 else r.flatten(1)
        h = torch.tanh(self.embed(tokens))
        weight = real[..., None].to(h.dtype)
        if self.masked:
            return self.head((h * weight).sum(1) / weight.sum(1))
        return self.head((h * weight).mean(1))  # by all there are


class Inverted(Told):
    """Told which cells are padding."""

    def forward(self, tokens: Tensor, is_pad: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(tokens, ~is_pad.bool())


class Segments(nn.Module):
    """Two segments in one piece each, steps and labels, of which none is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(50, 16), nn.Embedding(2, 16)
        self.labels, self.head = nn.Embedding(7, 16), nn.Linear(16, 4)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        h = (self.words(input_ids) + self.kinds(token_type_ids)).mean(1)
        return self.head(h if labels is None else h + self.labels(labels))


class Denoiser(nn.Module):
    """An image, at a step of its own for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.conv = nn.Embedding(9, 3), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.conv(x + self.steps(t)[..., None, None])


class Frames(nn.Module):
    """Strided convolutions, and what looks at all frames: of the row, or of the padding, too."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = nn.Conv1d(2, 8, 5, 2), nn.Conv1d(8, 8, 3, 2)
        if kind in ("gru", "packed"):
            self.gru = nn.GRU(8, 8, batch_first=True, bidirectional=True)

    def forward(self, signal: Tensor, lengths: Tensor) -> Tensor:
        h = self.second(F.relu(self.first(signal))).mT
        frames = ((lengths - 5) // 2 + 1 - 3) // 2 + 1
        if self.kind == "packed":
            packed = nn.utils.rnn.pack_padded_sequence(h, frames, True, enforce_sorted=False)
            out = self.gru(packed)[0]
            return nn.utils.rnn.pad_packed_sequence(out, True, total_length=h.shape[1])[0]
        if self.kind == "gru":
            return self.gru(h)[0]  # over all frames
        if self.kind == "centred":
            return h - h.mean(1, keepdim=True)  # of all frames
        return h


class Counting(nn.Module):
    """A length is turned into arithmetic, or the row is turned round, before a recurrence."""

    def __init__(self, kind: str, packed: bool = False) -> None:
        super().__init__()
        self.kind, self.packed = kind, packed
        self.embed = nn.Embedding(50, 8)
        self.gru, self.head = nn.GRU(8, 12, batch_first=True, bidirectional=True), nn.Linear(24, 3)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        x, size = self.embed(ids), ids.shape[1]
        places = torch.arange(size)
        if self.kind == "rest":
            rest = size - lengths
            x = x * (places < (size - rest)[:, None])[..., None]
        if self.kind == "share":
            share = lengths / size
            x = x * ((places + 0.5) / size < share[:, None])[..., None]
        if self.kind == "rolled":
            rest = size - lengths
            rolled = (places - rest[:, None]) % size
            x = x.gather(1, rolled[..., None].expand_as(x))
        if self.kind == "flipped":
            x = x.flip(1)
        if self.kind == "mean":  # of all cells, put right by their share
            x = x * (places < lengths[:, None])[..., None]
            x = x - (x.mean(1) * (size / lengths)[:, None])[:, None]
        if self.packed:
            if self.kind in ("flipped", "rolled"):  # real cells stand behind
                at = (places + size - lengths[:, None]).clamp(max=size - 1)
                x = x.gather(1, at[..., None].expand_as(x))
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
            h = nn.utils.rnn.pad_packed_sequence(self.gru(x)[0], True)[0]
        else:
            h = self.gru(x)[0]  # the recurrence
        return self.head(h.sum(1) / lengths[:, None])


class Placed(nn.Module):
    """Places as a share of the row: of the padded row, or of the real one."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own = own
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        places, size = torch.arange(ids.shape[1]), ids.shape[1]
        if self.own:
            at = places / lengths[:, None]
        else:
            at = (places / size)[None]  # of the padded row
        h = self.embed(ids) + at[..., None]
        return self.head(h * (places < lengths[:, None])[..., None])


class Last(nn.Module):
    """The last cell: of the padded row, or of the real one; what is real before is not moved."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own = own
        self.embed = nn.Embedding(50, 8)
        self.gru, self.head = nn.GRU(8, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        h = self.gru(self.embed(ids))[0]
        if self.own:
            return self.head(h[torch.arange(len(h)), lengths - 1])
        return self.head(h[:, -1])  # the last of the padded row


class Relative(nn.Module):
    """Lengths come as shares of the longest, as speech models have them."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        self.gru, self.head = nn.GRU(3, 8, batch_first=True, bidirectional=True), nn.Linear(16, 4)

    def forward(self, feats: Tensor, wav_lens: Tensor) -> Tensor:
        n = (wav_lens.flatten() * feats.shape[1]).round().long()
        if not self.packed:
            h = self.gru(feats)[0]  # over all feats
            real = torch.arange(feats.shape[1]) < n[:, None]
            return self.head((h * real[..., None]).sum(1) / n[:, None])
        x = nn.utils.rnn.pack_padded_sequence(feats, n, True, enforce_sorted=False)
        h = nn.utils.rnn.pad_packed_sequence(self.gru(x)[0], True)[0]
        return self.head(h.sum(1) / n[:, None])


FEATS = "feats: f32[batch frames 3] pad 0"
SHARED = [FEATS, "wav_lens: f32[batch] = share(frames)"]
SILENT = [FEATS, "wav_lens: f32[batch]"]


def relative(
    packed: bool, signature: list[str] | None = None, *, full: bool = False, column: bool = False
) -> Callable[[], Built]:
    def build() -> Built:
        lengths = torch.tensor([10, 10, 10, 10] if full else [10, 4, 6, 3])
        real = torch.arange(10) < lengths[:, None]
        shares = lengths / 10
        given = {
            "feats": torch.randn(4, 10, 3) * real[..., None],
            "wav_lens": shares[:, None] if column else shares,
        }
        module = Relative(packed).eval()
        return (module if signature is None else Model(module, signature)), given

    return build


SIGNAL = ["signal: f32[batch 2 samples=3..256] pad 0", "lengths: i64[batch] = length(samples)"]


def signed(module: Callable[[], nn.Module], signature: list[str]) -> Callable[[], Built]:
    """With a signature; no row of the batch is padded yet."""

    def build() -> Built:
        model = Model(module().eval(), signature)
        return model, drawn(Forward(model), batch=3, axes={}, seed=1)

    return build


def unsigned(module: Callable[[], nn.Module], said: str) -> Callable[[], Built]:
    """Without a signature: a mask, a mask of the padding, or lengths say what padding is."""

    def build() -> Built:
        lengths = torch.tensor([6, 3, 5])
        real = torch.arange(6) < lengths[:, None]
        given: dict[str, Tensor] = {"ids": torch.randint(1, 50, (3, 6)) * real}
        marks = {"mask": real.long(), "padding_mask": ~real, "lengths": lengths}
        return module().eval(), given | {said: marks[said]}

    return build


def shared(name: str, *arguments: Any) -> Callable[[], Built]:
    def build() -> Built:
        model = models.MODELS[name](*arguments)
        model.module.eval()
        return model, drawn(Forward(model), batch=3, axes={}, seed=1)

    return build


def bert(forgets: bool) -> Built:
    """A classifier over BERT that forgets to hand the mask on."""
    module = models.MODELS["bert"]().module.eval()

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert, self.head = module, nn.Linear(16, 2)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            mask = None if forgets else attention_mask
            return self.head(self.bert(input_ids, mask).pooler_output)

    return Classifier().eval(), texts()


def texts(left: bool = False) -> dict[str, Tensor]:
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])
    mask = mask.flip(1) if left else mask
    return {"input_ids": torch.randint(1, 60, (3, 5)) * mask, "attention_mask": mask}


def gpt2(left: bool) -> Built:
    return models.MODELS["gpt2_left"]().module.eval(), texts(left)


def t5() -> Built:
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=60, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return T5Model(config).eval(), texts() | {"decoder_input_ids": torch.randint(1, 60, (3, 5))}


def told(make: Callable[[], nn.Module], kind: str, left: bool = False) -> Callable[[], Built]:
    """Without a signature and without a telling name; nothing but padding is constant there."""

    def build() -> Built:
        lengths = torch.tensor([7, 3, 5, 6])
        real = torch.arange(7) < lengths[:, None]
        real = real.flip(1) if left else real
        ids = torch.randint(1, 50, (4, 7)) * real
        said = {"bool": real, "int": real.long(), "float": real.float(), "count": lengths,
                "row": real[:, None], "pad": ~real}[kind]  # fmt: skip
        module = make().eval()
        return module, {"tokens": ids, "is_pad" if isinstance(module, Inverted) else "r": said}

    return build


def segments(labelled: bool) -> Callable[[], Built]:
    def build() -> Built:
        lengths = torch.tensor([3, 2, 4])
        given = {
            "input_ids": torch.randint(1, 50, (3, 6)),
            "token_type_ids": (torch.arange(6) >= lengths[:, None]).long(),
        }
        return Segments().eval(), given | ({"labels": torch.tensor([6, 2, 5])} if labelled else {})

    return build


def denoiser() -> Built:
    return Denoiser().eval(), {"x": torch.randn(3, 3, 8, 8), "t": torch.tensor([8, 2, 5])}


def frames(kind: str) -> Callable[[], Built]:
    def build() -> Built:
        lengths = torch.tensor([64, 41, 56])
        signal = torch.randn(3, 2, 64) * (torch.arange(64) < lengths[:, None])[:, None]
        return Frames(kind).eval(), {"signal": signal, "lengths": lengths}

    return build


def wav2vec2(norm: str) -> Callable[[], Built]:
    """With a group norm over all frames of its first layer, padding moves all; see its docs."""

    def build() -> Built:
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        sizes: dict[str, Any] = {
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "conv_dim": (8, 8), "conv_stride": (5, 4),
            "conv_kernel": (10, 8), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 4,
        }  # fmt: skip
        module = Wav2Vec2Model(Wav2Vec2Config(feat_extract_norm=norm, **sizes))
        mask = (torch.arange(600) < torch.tensor([600, 420, 500])[:, None]).long()
        return module.eval(), {"input_values": torch.randn(3, 600) * mask, "attention_mask": mask}

    return build


class Quantizing(nn.Module):
    """Quantizes what a layer reads by one scale: of the batch, or of each cell."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.embed, self.layer = nn.Embedding(50, 16), nn.Linear(16, 4)
        with torch.no_grad():
            self.embed.weight[0] *= 3

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.embed(ids)
        if self.whole:
            return self.layer(h) * mask[..., None]  # one scale
        scale = h.abs().amax(-1, keepdim=True) / 127
        return self.layer((h / scale).round() * scale) * mask[..., None]


def quantized(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """With linear layers quantized dynamically."""

    def build() -> nn.Module:
        with warnings.catch_warnings(action="ignore"):
            return torch.ao.quantization.quantize_dynamic(make().eval(), {nn.Linear}, torch.qint8)

    return build


ALL = "# by all there are"
CASES = [
    *(Case(f"counted: {kind}", unsigned(lambda kind=kind: Counting(kind), "lengths"), True,
           line="# the recurrence") for kind in ("rest", "share", "rolled", "flipped", "mean")),
    *(Case(f"counted: {kind}, signed", signed(lambda kind=kind: Counting(kind), LONG), True,
           line="# the recurrence") for kind in ("rest", "share", "rolled", "flipped", "mean")),
    *(Case(f"counted: {kind}, packed",
           unsigned(lambda kind=kind: Counting(kind, packed=True), "lengths"), False)
      for kind in ("rest", "share", "rolled", "flipped", "mean")),
    *(Case(f"counted: {kind}, signed and packed",
           signed(lambda kind=kind: Counting(kind, packed=True), LONG), False)
      for kind in ("rest", "share", "rolled", "flipped", "mean")),
    Case("places in the padded row", signed(lambda: Placed(False), LONG), True,
         line="# of the padded row"),
    Case("places in the row", signed(lambda: Placed(True), LONG), False),
    Case("last in the padded row", signed(lambda: Last(False), LONG), True,
         line="# the last of the padded row"),
    Case("last in the row", signed(lambda: Last(True), LONG), False),
    Case("shares", relative(False), True, line="# over all feats"),
    Case("shares, in a column", relative(False, column=True), True, line="# over all feats"),
    Case("shares, signed", relative(False, SHARED), True, line="# over all feats"),
    Case("shares, which nobody says", relative(False, SILENT), True, line="# over all feats"),
    Case("shares, none shorter", relative(False, SHARED, full=True), True, line="# over all feats"),
    Case("shares, packed", relative(True), False),
    Case("shares in a column, packed", relative(True, column=True), False),
    Case("shares, signed and packed", relative(True, SHARED), False),
    Case("shares, which nobody says, packed", relative(True, SILENT), False),
    Case("shares, none shorter, packed", relative(True, SHARED, full=True), False),
    Case("shares, said by nobody, none shorter", relative(True, SILENT, full=True), False),
    Case("mean of all", signed(lambda: Pooled(False), MASKED), True, line="# the mean of all"),
    Case("mean of all, by mask", unsigned(lambda: Pooled(False), "mask"), True,
         line="# the mean of all"),
    Case("largest of all", signed(lambda: Largest(False), MASKED), True, line="# the largest"),
    Case("mask left out", signed(lambda: Attentive("none"), MASKED), True, line="# what all cells"),
    Case("mask too weak", unsigned(lambda: Attentive("weak"), "mask"), True, line="# what all"),
    Case("mask turned round", unsigned(lambda: Attentive("turned"), "mask"), True,
         line="# what all cells"),
    Case("encoder without mask", unsigned(lambda: Encoder(False), "padding_mask"), True,
         line="# the encoder"),
    Case("gru over padding", signed(lambda: Recurrent("plain"), LONG), True, line="# over padding"),
    Case("gru over padding, by lengths", unsigned(lambda: Recurrent("plain"), "lengths"), True,
         line="# over padding"),
    Case("average over padding", signed(lambda: Convolved(False), SIGNAL), True, line="# the av"),
    Case("bilstm", shared("bilstm"), True, line="self.lstm(self.embed(ids))"),
    Case("pooled convolution", shared("pooled_convolution"), True, line="mean(-1)"),
    Case("bert without its mask", lambda: bert(True), True),
    Case("gpt2 padded in front", lambda: gpt2(True), True),
    Case("gpt2 padded in front, signed", shared("gpt2_left"), True),
    *(Case(f"told by {kind}", told(lambda: Told(False), kind), True, line=ALL)
      for kind in ("bool", "int", "float", "count", "row")),
    Case("told what is padding", told(lambda: Inverted(False), "pad"), True, line=ALL),
    Case("told in front", told(lambda: Told(False), "bool", True), True, line=ALL),
    Case("frames in both directions", frames("gru"), True, line="# over all frames"),
    Case("frames centred", frames("centred"), True, line="# of all frames"),
    Case("wav2vec2 with a group norm", wav2vec2("group"), True),
    Case("quantized, mean of all", unsigned(quantized(lambda: Pooled(False)), "mask"), True,
         line="# the mean of all"),
    Case("quantized, mask turned round",
         unsigned(quantized(lambda: Attentive("turned")), "mask"), True, line="# what all cells"),
    Case("quantized by one scale", unsigned(quantized(lambda: Quantizing(True)), "mask"), True,
         line="# one scale"),
    Case("quantized by cells", unsigned(lambda: Quantizing(False), "mask"), False),
    *(Case(f"told by {kind}, masked", told(lambda: Told(True), kind), False)
      for kind in ("bool", "int", "float", "count", "row")),
    Case("told what is padding, masked", told(lambda: Inverted(True), "pad"), False),
    Case("told in front, masked", told(lambda: Told(True), "bool", True), False),
    Case("frames", frames("plain"), False),
    Case("frames packed", frames("packed"), False),
    Case("wav2vec2 with layer norms", wav2vec2("layer"), False),
    Case("segments", segments(False), False),
    Case("segments and labels", segments(True), False),
    Case("steps of a diffusion", denoiser, False),
    Case("mean of the valid", signed(lambda: Pooled(True), MASKED), False),
    Case("mean of the valid, by mask", unsigned(lambda: Pooled(True), "mask"), False),
    Case("largest of the valid", signed(lambda: Largest(True), MASKED), False),
    Case("mask", signed(lambda: Attentive("right"), MASKED), False),
    Case("mask, unsigned", unsigned(lambda: Attentive("right"), "mask"), False),
    Case("encoder with mask", unsigned(lambda: Encoder(True), "padding_mask"), False),
    Case("gru, packed", signed(lambda: Recurrent("packed"), LONG), False),
    Case("gru, gathered", unsigned(lambda: Recurrent("gathered"), "lengths"), False),
    Case("average of the real", signed(lambda: Convolved(True), SIGNAL), False),
    Case("masked mean", shared("masked_mean"), False),
    Case("bert", lambda: bert(False), False),
    Case("bert, signed", shared("bert"), False),
    Case("gpt2 padded behind", lambda: gpt2(False), False),
    Case("gpt2 with positions", shared("gpt2_left", True), False),
    Case("t5", t5, False),
    Case("in training", lambda: (Pooled(True), unsigned(lambda: Pooled(True), "mask")()[1]), False),
]  # fmt: skip
