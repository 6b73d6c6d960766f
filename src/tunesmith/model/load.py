"""From a folder to a model in memory: offline, strict, quiet, and the same each time."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tunesmith.core.errors import ModelError, Problem
from tunesmith.model import new_tokens
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import METHODS, START, read_method
from tunesmith.model.safety import scan

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def dtype_of(precision: str | torch.dtype) -> torch.dtype:
    """The settings' "fp32" and "bf16" as torch's dtypes; a dtype passes through."""
    return DTYPES[precision] if isinstance(precision, str) else precision


def load_base(folder: Path, *, dtype: str | torch.dtype, device: str | torch.device = "cpu") -> PreTrainedModel:
    """A causal language model with every weight from the files, in eval mode.

    Raises ModelError for unsafe or damaged files, an architecture that transformers does not have, and
    tensors that are missing, left over or of another shape: a partly random model never comes back.
    """
    scan(folder, follow_links=True)
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model, found = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype_of(dtype),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that all of them are reported below
            )
        except (ValueError, KeyError, OSError, TypeError, RuntimeError, AttributeError) as e:
            raise _unknown(folder, e) from e
    _refuse_partial(folder, found)
    return model.eval().to(device)


def skeleton(folder: Path) -> PreTrainedModel:
    """A causal language model's modules, with shapes and no weights. Raises ModelError as load_base does."""
    scan(folder, follow_links=True)
    with quiet(), torch.random.fork_rng(devices=[]), torch.device("meta"):
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()
        except (ValueError, KeyError, OSError, TypeError, RuntimeError, AttributeError) as e:
            raise _unknown(folder, e) from e


def load_tuned(
    base: Path,
    checkpoint: Path,
    *,
    dtype: str | torch.dtype,
    merge: bool = True,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """The tuned model of a checkpoint, in eval mode. What is merged is merged on the CPU: the same on every device.

    An adapter is merged in fp32 and the result cast once to `dtype` (merging in bf16 costs 4e-3 in the
    logits); with `merge=False`, and for a method that cannot be merged, it stays beside the base, in fp32, and the
    base is in `dtype`.
    A checkpoint that stands on another (its folder `start`) gets that one merged into the base first. The rows of its
    new tokens are part of the model in either case.
    A full checkpoint needs no base and ignores it.
    """
    method = read_method(checkpoint)
    if method.kind == "full":
        return load_base(checkpoint, dtype=dtype, device=device)
    merge = merge and METHODS[method.kind].mergeable
    under = torch.float32 if merge else dtype
    start = checkpoint / START
    model = load_tuned(base, start, dtype=under) if start.is_dir() else load_base(base, dtype=under)
    model = methods.load(new_tokens.put_rows(model, checkpoint), checkpoint)
    if merge:
        # plain weights again, as load_base gives them: with frozen ones torch 2.13 takes a path for bf16 on a CPU
        # that is 200 times slower where a head reads the last positions of a padded batch
        model = methods.merge(model, method).to(dtype_of(dtype)).requires_grad_(True)
    return model.eval().to(device)


def _unknown(folder: Path, e: Exception) -> ModelError:
    first = (str(e).strip().splitlines() or [type(e).__name__])[0][:300]
    return ModelError(
        f"transformers cannot load it: {first}",
        where=str(folder),
        fix="give a causal language model of an architecture that transformers has built in",
    )


def _refuse_partial(folder: Path, found: dict[str, Any]) -> None:
    problems = []
    for key, what in (
        ("missing_keys", "are not in the weight files"),
        ("unexpected_keys", "are in the weight files but not in the architecture"),
        ("mismatched_keys", "have another shape than the configuration says"),
    ):
        names = sorted(str(k[0]) if isinstance(k, tuple | list) else str(k) for k in found.get(key) or ())
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            problems.append(
                Problem(
                    where=str(folder),
                    what=f"{len(names)} tensors {what}: {shown}",
                    fix="config.json and weights must be of one model",
                )
            )
    if problems:
        raise ModelError(problems)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and warnings of transformers and peft; both as before afterwards."""
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("transformers")
    level, bars = logger.level, transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
