"""Runs the benchmark with settings from the environment (`python -m llm.benchmark`)."""

from __future__ import annotations

import argparse
import os
import sys

from llm.benchmark import options, plan
from llm.conf import from_mapping
from llm.errors import LLMError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m llm.benchmark", description="Measure the engine on this machine.")
    options.add_arguments(parser)
    try:
        plan.run(from_mapping(os.environ), options.of(vars(parser.parse_args())))
    except LLMError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
