"""Kinds of MindSpeed-MM's files, and keys that several readers know."""

from __future__ import annotations

MODEL, INFERENCE, DATA, TOOLS = "model.json", "inference_model.json", "data.json", "tools.json"
FSDP2, LAYERZERO, NATIVE = "fsdp2.yaml", "layerzero.yaml", "native.yaml"
FLAG, ENVIRONMENT = "shell flag", "environment variable"
TRAINING_KINDS = (MODEL, DATA, FSDP2, LAYERZERO, TOOLS, NATIVE)

PRE = "dataset_param.preprocess_parameters"
METHODS = "dataset_param.text_preprocess_methods"
CLIP_CHAINS = ("video", "video_and_first_frame", "video_only")
"""Lists of transforms that a clip goes through."""
IMAGE_BRANCH = ("i2v", "flf2v")
"""Types of networks that see a frame through an image encoder."""
ADAPTERS = ("--lora-r", "--lora-alpha", "--lora-target-modules")
MIN, MAX = "diffusion.min_timestep_boundary", "diffusion.max_timestep_boundary"
"""Fractions of the index axis that a training is for."""
