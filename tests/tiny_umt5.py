"""A small UMT5 release, for tests: an encoder of random weights and a tokenizer of whole words."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from mm_config.specs.dtype import Dtype
from mm_config.specs.encoders import Umt5TextEncoderSpec
from mm_config.specs.weights import ReleasedWeights

MARKS = ["<pad>", "</s>", "<unk>"]


def spec_of(words: list[str], max_tokens: int = 8) -> Umt5TextEncoderSpec:
    """The spec of the release `tiny-umt5` with those words."""
    return Umt5TextEncoderSpec(
        weights=ReleasedWeights(name="tiny-umt5", subfolder="text_encoder"),
        text_dim=16,
        max_tokens=max_tokens,
        vocab_size=len(MARKS) + len(words),
        num_layers=2,
        num_heads=2,
        d_kv=8,
        d_ff=24,
        dtype=Dtype.FLOAT32,
    )


def write_release(folder: Path, words: list[str]) -> None:
    """Writes it: words at white space and punctuation, numbered after the marks; `</s>` ends each caption."""
    entries = MARKS + words
    torch.manual_seed(0)
    config = UMT5Config(
        vocab_size=len(entries), d_model=16, num_layers=2, num_heads=2, d_kv=8, d_ff=24, dropout_rate=0.5
    )
    UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(entries)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder / "tokenizer")
