"""Generates moving shapes from text alone, by the network that takes first frames as well."""

from experiments import tiny, tiny_ti2v
from mm_config import main, replace

SPEC = replace(tiny_ti2v.SPEC, "samples", tiny.SPEC.samples)

if __name__ == "__main__":
    main(SPEC)
