"""The verbs of `mm` that this package registers; torch is imported once their words are in order."""
