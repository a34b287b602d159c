"""Rules on how clips are put together: tails, tokens, blocks and mixtures."""

from mm_config.specs.data import BucketSpec, Order, Resize, Tails
from mm_config.specs.datasets import ManifestSpec, MixturePart, MixtureSpec
from tests.mm_config.breaking import WAN_1_3B, found, only

PART = MixturePart(dataset=ManifestSpec(name="clips"))


def test_nothing_is_shuffled_in_a_sequence() -> None:
    assert found(WAN_1_3B, {"data.shuffle_block": 64}) == {}
    sequence = {"data.shuffle_block": 64, "data.order": Order.SEQUENTIAL}
    only(WAN_1_3B, sequence, "data.shuffle_block", "shuffles nothing; set it to None")


def test_tokens_are_for_clips_of_several_sizes() -> None:
    tokens = {"data.tokens_per_batch": 10**6}
    only(WAN_1_3B, tokens, "data.tokens_per_batch", "which only clips of several sizes uses")
    assert found(WAN_1_3B, {**tokens, "data.resize": Resize.AREA}) == {}
    bucket = BucketSpec(num_frames=81, height=480, width=832, batch_size=64)
    path = "data.buckets.0.batch_size"
    only(WAN_1_3B, {**tokens, "data.buckets": (bucket,)}, path, "says how many clips fit; set it to None")


def test_parts_of_a_mixture_carry_their_tails() -> None:
    mixed = {"data.dataset": MixtureSpec(parts=(PART, PART))}
    assert found(WAN_1_3B, mixed) == {}
    only(WAN_1_3B, {**mixed, "data.tails": Tails.PAD}, "data.tails", "is pad", "leave it at carry")
    inside = MixtureSpec(parts=(PART, MixturePart(dataset=MixtureSpec(parts=(PART,)))))
    only(WAN_1_3B, {"data.dataset": inside}, "data.dataset.parts.1.dataset", "list its parts here")
