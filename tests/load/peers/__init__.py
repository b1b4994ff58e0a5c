"""Other engines on the same machine in the same run: `python -m tests.load.peers.compare --help`.

Each peer has a script that needs nothing of this project, is run by the Python of an environment of its own, and prints
one JSON document with rows as `manage.py benchmark --json` has them. No script has the name of a package that it
imports: Python looks in a script's own folder first.

    llamacpp         llama.cpp through llama-cpp-python (compiles)
    openvinogenai    OpenVINO GenAI's continuous batching (gigabytes to install, and the model is converted by hand)
    original         ChatStream 0.3.0, which this project follows
"""
