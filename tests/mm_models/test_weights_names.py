"""Tables of names: each is a bijection onto every family's network, and dialects are told apart."""

import re
import subprocess
import sys

import pytest

from mm_models.wan.names import DIALECTS, DIFFUSERS, MINDSPEED, WAN
from mm_models.wan.published import WAN as PUBLISHED
from mm_models.weights.names import Dialect, matches
from mm_models.weights.published import families, published
from tests.mm_models.weight_files import SPECS

ANCHOR = PUBLISHED.anchor


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_table_is_a_bijection_onto_every_familys_names(dialect: Dialect) -> None:
    used = set()
    for model in families().values():
        ours = list(model.parameter_shapes())
        theirs = [dialect.theirs(name) for name in ours]
        assert len(set(theirs)) == len(ours)
        assert [dialect.ours(name) for name in theirs] == ours
        used |= set(ours)
    # No row of a table is without a tensor in some family.
    rows = {re.sub(r"blocks\.\d+", "blocks.*", dialect.theirs(name)) for name in used}
    modules = {row.removesuffix(".weight").removesuffix(".bias") for row in rows}
    assert modules == set(dialect.modules.values())


def test_a_name_that_several_tables_know_is_the_same_tensor_in_all() -> None:
    for network in published():
        for spec in network.families().values():
            for name in network.shapes(spec):
                theirs = {dialect.theirs(name) for dialect in network.dialects}
                known = {dialect.ours(one) for dialect in network.dialects for one in theirs}
                assert known - {None} == {name}


def test_every_published_family_is_known() -> None:
    assert {"wan21.T2V_1_3B", "wan21.FLF2V_14B", "wan22.I2V_A14B", "wan22.TI2V_5B", "tiny.TINY"} <= set(
        families()
    )


def test_names_of_the_original_code() -> None:
    pairs = {
        "blocks.7.attn1.to_q.weight": "blocks.7.self_attn.q.weight",
        "blocks.11.attn2.to_out.0.bias": "blocks.11.cross_attn.o.bias",
        "blocks.0.attn2.norm_added_k.weight": "blocks.0.cross_attn.norm_k_img.weight",
        "blocks.0.norm2.bias": "blocks.0.norm3.bias",
        "blocks.0.scale_shift_table": "blocks.0.modulation",
        "blocks.0.ffn.net.0.proj.weight": "blocks.0.ffn.0.weight",
        "scale_shift_table": "head.modulation",
        "proj_out.weight": "head.head.weight",
        "condition_embedder.image_embedder.pos_embed": "img_emb.emb_pos",
        "condition_embedder.image_embedder.ff.net.2.weight": "img_emb.proj.3.weight",
        "condition_embedder.time_proj.bias": "time_projection.1.bias",
    }
    for ours, theirs in pairs.items():
        assert WAN.theirs(ours) == theirs
        assert WAN.ours(theirs) == ours
    assert WAN.ours("blocks.0.self_attn.proj_q.weight") is None


def test_mindspeeds_uncertain_norms_are_read_in_either_spelling() -> None:
    for name in ("blocks.3.self_attn.q_norm.weight", "blocks.3.self_attn.norm_q.weight"):
        assert MINDSPEED.ours(name) == "blocks.3.attn1.norm_q.weight"


@pytest.mark.parametrize("prefix", ["", "model.", "module.predictor.", "model.diffusion_model."])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_dialect_is_found_under_any_prefix(dialect: Dialect, prefix: str) -> None:
    names = [prefix + dialect.theirs(name) for name in SPECS["i2v"].parameter_shapes()]
    moments = [f"optimizer.exp_avg.{name}" for name in names]
    found, *_ = matches([*names, *moments, "ema." + names[1]], DIALECTS, ANCHOR)
    assert (found.dialect, found.prefix, found.names) == (dialect, prefix, sorted(names))


def test_names_of_another_network_are_no_dialect() -> None:
    strangers = ["double_blocks.0.img_attn_qkv.weight", "img_in.proj.weight"]
    assert matches(strangers, DIALECTS, ANCHOR) == []
    assert matches([], (DIFFUSERS,), ANCHOR) == []


def test_the_order_of_equals_is_the_same_under_every_seed_of_hashes() -> None:
    code = (
        "from mm_models.weights.names import Dialect, matches\n"
        "names = [p + n for p in ('b.', 'ema.', 'cc.', '', 'a.') for n in ('x.weight', 'y.weight')]\n"
        "tables = [Dialect(n, n, {'x': 'x', 'y': 'y'}) for n in 'uv']\n"
        "print([(one.prefix, one.dialect.name) for one in matches(names, tables, 'x.weight')])"
    )
    orders = set()
    for seed in "012345":
        run = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True)
        orders.add(run.stdout.decode())
    expected = [(prefix, name) for prefix in ("", "a.", "b.", "cc.", "ema.") for name in "uv"]
    assert orders == {f"{expected}\n"}
