"""Patterns over modules and parameters: stars, lists in braces, what is said of those that match nothing."""

import pytest

from mm_config.rules.patterns import (
    linear_layers,
    matches,
    matches_parameter,
    module_lists,
    module_names,
    nearest,
    pattern_problem,
)
from mm_config.schema.errors import UserError
from tests.mm_config.breaking import WAN_1_3B

MODEL = WAN_1_3B.model
NAMES = module_names(MODEL)


def matched(pattern: str) -> list[str]:
    return [name for name in NAMES if matches(name, pattern)]


def test_a_star_never_crosses_a_dot_in_module_names() -> None:
    assert matched("blocks.*") == [f"blocks.{index}" for index in range(30)]
    assert matched("*") == ["patch_embedding", "condition_embedder", "blocks", "proj_out"]
    assert matched("blocks.?") == [f"blocks.{index}" for index in range(10)]
    assert matched("blocks.??") == [f"blocks.{index}" for index in range(10, 30)]
    assert matched("blocks.?*") == matched("blocks.*") == matched("blocks.**") == matched("blocks.*?")


def test_braces_list_numbers_ranges_and_names() -> None:
    assert matched("blocks.{0-3,7}") == [f"blocks.{index}" for index in (0, 1, 2, 3, 7)]
    assert matched("blocks.{29}") == ["blocks.29"]
    assert matched("blocks.{1}") == ["blocks.1"]
    assert matched("blocks.{9-11}") == ["blocks.9", "blocks.10", "blocks.11"]
    assert matched("blocks.{1,2}.attn{1,2}.{to_q,to_k}") == [
        f"blocks.{block}.attn{attention}.{name}"
        for block in (1, 2)
        for attention in (1, 2)
        for name in ("to_q", "to_k")
    ]


def test_a_star_in_braces_is_a_star() -> None:
    assert matched("blocks.{*}") == matched("blocks.*")


@pytest.mark.parametrize(
    ("pattern", "wrong"),
    [
        ("blocks.{0-3", "'{'"),
        ("blocks.0-3}", "'}'"),
        ("blocks.{}", "''"),
        ("blocks.{0-3,}", "''"),
        ("blocks.{3-0}", "'3-0'"),
        ("blocks.{0 - 3}", "'0 - 3'"),
        ("blocks.{0..3}", "'0..3'"),
        ("blocks.{0:3}", "'0:3'"),
        ("blocks.{01}", "'01'"),
        ("blocks.{0-99999999999999999999}", "'0-99999999999999999999'"),
        ("blocks.{{0,1}}", "'{'"),
        ("blocks.{*,1}", "'*'"),
    ],
)
def test_malformed_braces_are_told_with_accepted_spellings(pattern: str, wrong: str) -> None:
    message = pattern_problem(pattern)
    assert message is not None
    assert repr(pattern) in message and wrong in message and "blocks.{0-3,7}" in message
    with pytest.raises(UserError, match="can't be read"):
        matches("blocks.0", pattern)


@pytest.mark.parametrize("pattern", ["blocks.*", "", "a.b", "[x]", "(", "\\", "x$", "blocks.{0-3}\n"])
def test_all_other_text_is_taken_literally(pattern: str) -> None:
    assert pattern_problem(pattern) is None
    assert "*" in pattern or "{" in pattern or matches(pattern, pattern)
    assert not matches("blocks.0\n", "blocks.*0")


def test_a_star_crosses_dots_in_parameter_names() -> None:
    assert matches_parameter("blocks.0.attn1.to_q.bias", "*.bias")
    assert matches_parameter("blocks.0.attn1.to_q.bias", "blocks.{0,1}.*")
    assert not matches_parameter("blocks.2.attn1.to_q.bias", "blocks.{0,1}.*")
    assert not matches_parameter("blocks.0.attn1.to_q.weight", "*.bias")


def test_many_stars_end_soon() -> None:
    name = ".".join(["condition_embedder"] * 20)
    assert not matches_parameter(name, "*?" * 40 + "z")


def test_linear_layers_have_a_matrix() -> None:
    layers = linear_layers(MODEL)
    assert layers["blocks.29.ffn.net.0.proj"] == (8960, 1536)
    assert "blocks.0.attn1.norm_q" not in layers and "patch_embedding" not in layers
    assert len(layers) == 30 * 10 + 6


def test_lists_of_modules_have_numbered_children() -> None:
    assert "blocks" in module_lists(MODEL) and "blocks.0.attn1.to_out" in module_lists(MODEL)
    assert "blocks.0" not in module_lists(MODEL) and "blocks.0.attn1.to_q" not in module_lists(MODEL)


def test_nearest_patterns_name_blocks_by_a_star() -> None:
    assert nearest("predictor.blocks.*", NAMES)[0] == "blocks.*"
    assert nearest("blocks.*.atn1", NAMES, count=1) == ["blocks.*.attn1"]
    assert len(nearest("x" * 100_000, NAMES)) == 3
