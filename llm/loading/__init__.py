"""Where a model comes from: the bundled one, the hub, a directory, a GGUF file or a function.

What comes out is a model of transformers with its tokenizer on the right device. How tokens are computed from it is not
known here. A reader starts in `loader`.
"""
