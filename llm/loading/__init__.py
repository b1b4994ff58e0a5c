"""Loads a model: the bundled one, or one from the hub, a directory, a GGUF file or a function.

The result is a model of transformers with its tokenizer on the right device; how tokens are computed from it is not
known here. A reader starts in `loader`.
"""
