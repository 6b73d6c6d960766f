"""Out of memory: the batch is tried again in smaller micro-batches, from the weights it began with.

Only a device that says so can be caught, or a CPU under a limit of the process (ulimit -v). Otherwise the system
kills the process without a word, and the next run goes on from the last saved state.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import nn

from tunesmith.core.errors import Problem, TunesmithError
from tunesmith.train.optimizers.catalog import AnyOptimizer, memory

T = TypeVar("T")
CPU_SAYS = "can't allocate memory"  # torch's plain RuntimeError where the process has a limit of its own


def within_memory(
    run: Callable[[int], T],
    *,
    micro_batch_tokens: int,
    longest: int,
    parameters: Mapping[str, nn.Parameter],
    optimizer: AnyOptimizer,
) -> tuple[T, int]:
    """run(micro_batch_tokens), halving the argument each time memory does not suffice; what it gave and the
    argument that fitted. Gradients made so far are dropped before each new try. `longest`: tokens of the longest
    document, which cannot be split: TunesmithError, by part, once it is alone in its micro-batch."""
    while True:
        try:
            return run(micro_batch_tokens), micro_batch_tokens
        except RuntimeError as e:
            if not is_out_of_memory(e):
                raise
            said = str(e).split("\n")[0][:200]
        # the traceback, and with it every activation, is gone here
        for p in parameters.values():
            p.grad = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if micro_batch_tokens <= longest:
            raise _explained(longest, said, parameters, optimizer)
        micro_batch_tokens = max(1, micro_batch_tokens // 2)


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and CPU_SAYS in str(error))


def _explained(
    longest: int, said: str, parameters: Mapping[str, nn.Parameter], optimizer: AnyOptimizer
) -> TunesmithError:
    trained = sum(p.numel() * p.element_size() for p in parameters.values())
    tensors, _ = memory(optimizer, parameters)
    remembered = sum(t.numel() * t.element_size() for t in tensors.values())
    parts = f"trained weights {_mib(trained)}, gradients {_mib(trained)}, optimizer {_mib(remembered)}"
    what = f"one example of {longest} tokens does not fit beside {parts} and {_rest(trained + remembered)} ({said})"
    fix = (
        "--set exec.gradient_checkpointing=true, or a smaller train.max_tokens with data.over_long=leave_out;"
        " docs/guides/memory.md has more, in the order that costs least"
    )
    return TunesmithError(Problem(where="memory", what=what, fix=fix))


def _rest(named: int) -> str:
    """What a GPU held besides: what stayed when the step was given up are frozen weights, what went were activations."""
    if not torch.cuda.is_available() or not torch.cuda.max_memory_allocated():
        return "the frozen weights and the activations"
    stayed, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    return f"frozen weights {_mib(max(0, stayed - named))}, activations {_mib(max(0, peak - stayed))} at least"


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
