"""The text encoder without weights: fixed, distinct, order-aware features."""

import pytest
import torch

import mm_models
from mm_config.schema.errors import UserError
from mm_config.specs.datasets import ShapesSpec
from mm_config.specs.encoders import HashedTextEncoderSpec

SPEC = HashedTextEncoderSpec(text_dim=64, max_tokens=6)


def encode(*captions: str, spec: HashedTextEncoderSpec = SPEC) -> torch.Tensor:
    return mm_models.build_text_encoder(spec).encode(list(captions))


def test_features_are_zero_beyond_the_caption_and_for_no_caption() -> None:
    features = encode("red circle", "", "a red circle moving right")
    assert features.shape == (3, 6, 64) and features.dtype == torch.float32
    assert features[0, :3].abs().amax(-1).min() > 0 and not features[0, 3:].any()
    assert not features[1].any()
    assert features[2].abs().amax(-1).min() > 0


def test_features_do_not_depend_on_the_other_captions_nor_on_case_and_spaces() -> None:
    alone = encode("a red circle moving right")[0]
    assert torch.equal(encode("blue", "a red circle moving right")[1], alone)
    assert torch.equal(encode("A  Red circle\tmoving right ")[0], alone)


def test_tokens_have_unit_mean_square() -> None:
    features = encode(*ShapesSpec().captions)
    assert features.square().mean().item() == pytest.approx(1, abs=0.1)


def test_every_caption_of_the_demo_is_told_apart_by_its_summary() -> None:
    summaries = encode(*ShapesSpec().captions)[:, 0]
    assert torch.linalg.matrix_rank(summaries) >= 9
    distances = torch.cdist(summaries, summaries) + 100 * torch.eye(len(summaries))
    assert distances.min() > 2


def test_word_order_counts_from_two_grams_on() -> None:
    one = HashedTextEncoderSpec(text_dim=64, max_tokens=6, ngrams=1)
    assert torch.equal(encode("up down", spec=one)[0, 1], encode("down up", spec=one)[0, 2])
    assert not torch.equal(encode("up down")[0, 1], encode("down up")[0, 2])


def test_features_are_these_for_ever() -> None:
    features = encode("red", spec=HashedTextEncoderSpec(text_dim=12, max_tokens=2, ngrams=1))
    assert features[0, 1].tolist() == [-1, -1, -1, 1, -1, -1, 1, -1, 1, -1, 1, 1]
    assert torch.equal(features[0, 0], features[0, 1])


def test_captions_that_do_not_fit_are_all_named() -> None:
    with pytest.raises(UserError) as caught:
        encode("one two three four five six", "fits", "1 2 3 4 5 6 7")
    assert [str(problem) for problem in caught.value.problems] == [
        "spec.text_encoder.max_tokens: 'one two three four five six' has 6 words, 5 fit",
        "spec.text_encoder.max_tokens: '1 2 3 4 5 6 7' has 7 words, 5 fit",
    ]
