"""Reads the weights of a causal LM from its files, all of them.

transformers fills weights that a file lacks with random numbers and a warning: such a model runs, and talks nonsense.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM


def pretrained(folder: Path, **options: Any) -> Any:
    """Return the model. Raises ValueError if weights are missing, and whatever transformers raises."""
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    if missing := sorted(told["missing_keys"]):
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"it has no weights for {missing[0]}{others}")
    return model
