"""The command line: `main(SPEC)` of experiment files, and `mm` with its verbs."""
