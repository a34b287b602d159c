"""Names of Wan's transformer: diffusers', the original code's and MindSpeed-MM's.

How sure each column is. `wan` is the original `wan/modules/model.py` of Wan2.1 and Wan2.2, which its
published files bear: certain. `mindspeed` is `mindspeed_mm/models/predictor/dits/wan_dit.py` and the table of
its `wan_converter.py`:

- certain, by the LoRA targets and hooks of its scripts: `proj_q`, `proj_k`, `proj_v`, `proj_out`, `ffn.0`,
  `ffn.2`, `patch_embedding`;
- by the classes it uses (a TextProjection of diffusers; the original code's `Sequential`s otherwise), likely:
  `text_embedding.linear_1`, `time_embedding.0`, `time_projection.1`, `norm3`, `modulation`, `head.head`;
- from memory of its public code, not checked against a file: `q_norm`, `k_norm`, `k_img`, `v_img`,
  `k_norm_img`, `head.modulation`, `img_emb.proj.N`, `img_emb.emb_pos`. Where the original's `norm_q`,
  `norm_k`, `norm_k_img` stand instead, or their text embedding, they are read too.
"""

from mm_models.weights.names import Dialect

_ROWS = (
    # ours (diffusers)                                 wan                        mindspeed
    ("patch_embedding", "patch_embedding", "patch_embedding"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0", "text_embedding.linear_1"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2", "text_embedding.linear_2"),
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1", "time_projection.1"),
    ("condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos", "img_emb.emb_pos"),
    ("condition_embedder.image_embedder.norm1", "img_emb.proj.0", "img_emb.proj.0"),
    ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1", "img_emb.proj.1"),
    ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3", "img_emb.proj.3"),
    ("condition_embedder.image_embedder.norm2", "img_emb.proj.4", "img_emb.proj.4"),
    ("blocks.*.scale_shift_table", "blocks.*.modulation", "blocks.*.modulation"),
    ("blocks.*.norm2", "blocks.*.norm3", "blocks.*.norm3"),
    ("blocks.*.attn1.to_q", "blocks.*.self_attn.q", "blocks.*.self_attn.proj_q"),
    ("blocks.*.attn1.to_k", "blocks.*.self_attn.k", "blocks.*.self_attn.proj_k"),
    ("blocks.*.attn1.to_v", "blocks.*.self_attn.v", "blocks.*.self_attn.proj_v"),
    ("blocks.*.attn1.to_out.0", "blocks.*.self_attn.o", "blocks.*.self_attn.proj_out"),
    ("blocks.*.attn1.norm_q", "blocks.*.self_attn.norm_q", "blocks.*.self_attn.q_norm"),
    ("blocks.*.attn1.norm_k", "blocks.*.self_attn.norm_k", "blocks.*.self_attn.k_norm"),
    ("blocks.*.attn2.to_q", "blocks.*.cross_attn.q", "blocks.*.cross_attn.proj_q"),
    ("blocks.*.attn2.to_k", "blocks.*.cross_attn.k", "blocks.*.cross_attn.proj_k"),
    ("blocks.*.attn2.to_v", "blocks.*.cross_attn.v", "blocks.*.cross_attn.proj_v"),
    ("blocks.*.attn2.to_out.0", "blocks.*.cross_attn.o", "blocks.*.cross_attn.proj_out"),
    ("blocks.*.attn2.norm_q", "blocks.*.cross_attn.norm_q", "blocks.*.cross_attn.q_norm"),
    ("blocks.*.attn2.norm_k", "blocks.*.cross_attn.norm_k", "blocks.*.cross_attn.k_norm"),
    ("blocks.*.attn2.add_k_proj", "blocks.*.cross_attn.k_img", "blocks.*.cross_attn.k_img"),
    ("blocks.*.attn2.add_v_proj", "blocks.*.cross_attn.v_img", "blocks.*.cross_attn.v_img"),
    ("blocks.*.attn2.norm_added_k", "blocks.*.cross_attn.norm_k_img", "blocks.*.cross_attn.k_norm_img"),
    ("blocks.*.ffn.net.0.proj", "blocks.*.ffn.0", "blocks.*.ffn.0"),
    ("blocks.*.ffn.net.2", "blocks.*.ffn.2", "blocks.*.ffn.2"),
    ("scale_shift_table", "head.modulation", "head.modulation"),
    ("proj_out", "head.head", "head.head"),
)
_NORMS = ("attn1.norm_q", "attn1.norm_k", "attn2.norm_q", "attn2.norm_k", "attn2.norm_added_k")
_ORIGINAL = {ours: wan for ours, wan, _ in _ROWS}

DIFFUSERS = Dialect("diffusers", "diffusers' WanTransformer3DModel", {ours: ours for ours, _, _ in _ROWS})
WAN = Dialect("wan", "the original code's WanModel", _ORIGINAL)
MINDSPEED = Dialect(
    "mindspeed",
    "MindSpeed-MM's WanDiT",
    {ours: mindspeed for ours, _, mindspeed in _ROWS},
    {
        ours: wan
        for ours, wan in _ORIGINAL.items()
        if ours.removeprefix("blocks.*.") in _NORMS or "text_embedder" in ours
    },
)
DIALECTS = (DIFFUSERS, WAN, MINDSPEED)

UNUSED = frozenset(("norm_added_q",))
"""Published image branches hold a norm that no computation uses."""
