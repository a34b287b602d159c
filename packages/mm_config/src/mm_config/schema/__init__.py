"""How specs are made and compared: fields, types, ranges, evolution, identity, differences, errors."""
