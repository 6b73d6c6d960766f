"""One constructor and one memory for all optimizers.

An Optimizer here is one or two of torch's: Muon steps the hidden matrices and AdamW everything else.
Each group carries a `ratio`, by which `optim.apply` multiplies the rate of the step.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tunesmith.core.errors import InputError, Problem
from tunesmith.core.extras import need
from tunesmith.train.optimizers.lion import Lion
from tunesmith.train.optimizers.schedule_free import ScheduleFree

BETAS = (0.9, 0.999)
EPS = 1e-8
MASTER = "master"  # entry of an optimizer's memory: the fp32 copy of a weight
Ratios = Sequence[tuple[str, float]]  # (pattern of weight names, multiple of the rate); the first match counts


class Optimizer:
    """One training's optimizers, stepped together."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        self.parts = tuple(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [g for part in self.parts for g in part.param_groups]

    def held(self, parameters: Mapping[str, nn.Parameter]) -> Mapping[str, nn.Parameter]:
        """What is stepped in the place of each: the weights themselves; see masters.py."""
        return parameters

    def kept(self) -> dict[str, Tensor]:
        return {}

    def refill(self, saved: Mapping[str, Tensor]) -> None:
        """After the weights were put back."""

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)


AnyOptimizer: TypeAlias = Optimizer | torch.optim.Optimizer


def make(
    name: str,
    parameters: Mapping[str, nn.Parameter],
    *,
    weight_decay: float,
    lr_ratios: Ratios = (),
    hidden: Callable[[str], bool] = lambda name: False,
    paged: bool = False,
) -> Optimizer:
    """The optimizer `name` over named parameters in their order; vectors (norms, biases) do not decay.

    `hidden` says which matrices Muon may step: not embeddings, not the output head. `paged`: of adamw_8bit on a GPU,
    whose moments the driver moves to the CPU's memory when it must (Dettmers et al. 2023, arXiv:2305.14314, section 3);
    on a CPU it is the same optimizer unpaged. Raises InputError for a
    pattern that matches nothing, MissingExtra where a library is missing.
    """
    ratios = ratios_of(parameters, lr_ratios)
    match name:
        case "adamw":
            groups = _groups(parameters, ratios, weight_decay)
            return Optimizer([torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS, fused=True)])
        case "adafactor":
            return Optimizer([_adafactor(_groups(parameters, ratios, weight_decay))])
        case "lion":
            return Optimizer([Lion(_groups(parameters, ratios, weight_decay))])
        case "schedule_free":
            return Optimizer([ScheduleFree(_groups(parameters, ratios, weight_decay))])
        case "muon":
            return _muon(parameters, ratios, weight_decay, hidden)
        case "adamw_8bit":
            bitsandbytes = need("bitsandbytes", extra="quant", why="train.optimizer=adamw_8bit")
            groups = _groups(parameters, ratios, weight_decay)
            kind = bitsandbytes.optim.PagedAdamW8bit if paged else bitsandbytes.optim.AdamW8bit
            return Optimizer([kind(groups, lr=0.0, betas=BETAS, eps=EPS)])
    raise InputError(Problem(where="train.optimizer", what=f"{name!r} is no optimizer that is known here"))


def hidden_weights(model: Any) -> Callable[[str], bool]:
    """Which names are hidden matrices: every weight of a linear layer but those of embeddings and output head."""
    outer = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m is not None}
    named = dict(model.named_parameters())
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return lambda name: name in named and id(named[name]) not in outer | embeddings


def _adafactor(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """transformers' Adafactor at the rate it is given.

    Source: Shazeer & Stern 2018, arXiv:1804.04235, algorithm 4, without relative step sizes: as in the paper
    and in torch.optim.Adafactor, a step is a share of the weight's own size, at least 1e-3, so that LoRA's B,
    which starts at zero, would hardly move.
    """
    from transformers.optimization import Adafactor

    made: torch.optim.Optimizer = Adafactor(groups, lr=0.0, scale_parameter=False, relative_step=False)
    return made


def _muon(
    parameters: Mapping[str, nn.Parameter],
    ratios: Mapping[str, float],
    weight_decay: float,
    hidden: Callable[[str], bool],
) -> Optimizer:
    """torch.optim.Muon for hidden matrices, AdamW for the rest.

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; an update is scaled by 0.2 sqrt(longer side), as
    in Liu et al. 2025, arXiv:2502.16982, eq. 4, so that one rate serves both. Newton-Schulz runs in bf16.
    """
    matrices = {n: p for n, p in parameters.items() if p.ndim == 2 and hidden(n)}
    rest = {n: p for n, p in parameters.items() if n not in matrices}
    if not matrices:
        what, fix = "no hidden matrix is trained, and muon is made for them", "--set train.optimizer=adamw"
        raise InputError(Problem(where="train.optimizer", what=what, fix=fix))
    groups = _groups(matrices, ratios, weight_decay)
    parts: list[torch.optim.Optimizer] = [torch.optim.Muon(groups, lr=0.0, adjust_lr_fn="match_rms_adamw")]
    if rest:
        groups = _groups(rest, ratios, weight_decay)
        parts.append(torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS, fused=True))
    return Optimizer(parts)


def ratios_of(parameters: Collection[str], lr_ratios: Ratios) -> dict[str, float]:
    """Name → multiple of the rate. Raises InputError for a pattern that fits no name."""
    problems = []
    for pattern, _ in lr_ratios:
        if not any(fnmatchcase(n, pattern) for n in parameters):
            near = difflib.get_close_matches(pattern, list(parameters), n=3, cutoff=0.2)
            fix = f"trained weights are called {', '.join(near or sorted(parameters)[:3])}, ..."
            what = f"{pattern!r} matches no trained weight"
            problems.append(Problem(where="train.lr_ratios", what=what, fix=fix))
    if problems:
        raise InputError(problems)
    return {n: next((r for pattern, r in lr_ratios if fnmatchcase(n, pattern)), 1.0) for n in parameters}


def _groups(
    parameters: Mapping[str, nn.Parameter], ratios: Mapping[str, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Matrices that decay, then vectors that do not, for each multiple of the rate."""
    groups = [
        {
            "params": [p for n, p in parameters.items() if (p.ndim >= 2) == decays and ratios[n] == ratio],
            "weight_decay": weight_decay if decays else 0.0,
            "ratio": ratio,
        }
        for ratio in sorted(set(ratios.values()))
        for decays in (True, False)
    ]
    return [g for g in groups if g["params"]]


# -- memory ----------------------------------------------------------------------------------------------


def memory(optimizer: AnyOptimizer, parameters: Mapping[str, nn.Parameter]) -> tuple[dict[str, Tensor], str]:
    """All that an optimizer remembers: tensors under "<entry>.<weight>", and its other values as JSON."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    if isinstance(optimizer, Optimizer):
        tensors |= {f"{MASTER}.{n}": t for n, t in optimizer.kept().items()}
    seen: set[int] = set()
    for name, state in _states(optimizer, parameters):
        for entry, value in state.items():
            if isinstance(value, Tensor):
                shared = value.numel() > 0 and value.data_ptr() in seen  # bitsandbytes' tables are one for all
                seen.add(value.data_ptr())
                tensors[f"{entry}.{name}"] = value.clone() if shared else value
            else:
                values[f"{entry}.{name}"] = value
    return tensors, json.dumps(values, sort_keys=True)


def restore(
    optimizer: AnyOptimizer, parameters: Mapping[str, nn.Parameter], saved: Mapping[str, Tensor], values: str
) -> None:
    """Put back what `memory` gave. `saved` may hold other tensors too."""
    parameters = _held(optimizer, parameters)
    if isinstance(optimizer, Optimizer):
        prefix = f"{MASTER}."
        optimizer.refill({n.removeprefix(prefix): t for n, t in saved.items() if n.startswith(prefix)})
    rest: dict[str, Any] = json.loads(values)
    found: dict[str, dict[str, Any]] = {n: {} for n in parameters}
    for key, value in (*saved.items(), *rest.items()):
        entry, _, name = key.partition(".")
        if name in found and entry != MASTER:
            place = parameters[name].device
            found[name][entry] = value.to(place, copy=True) if isinstance(value, Tensor) else value
    for part in _parts(optimizer):
        owned = {id(p) for g in part.param_groups for p in g["params"]}
        for name, p in parameters.items():
            if id(p) in owned and found[name]:
                part.state[p] = _paged(part, p, found[name])


def judged(optimizer: AnyOptimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The weights to judge and keep where they are not the ones that gradients are taken at: schedule-free's
    averages. Empty for every other optimizer."""
    found: dict[str, Tensor] = {}
    for part in _parts(optimizer):
        if isinstance(part, ScheduleFree):
            found |= {n: part.average(p) for n, p in _held(optimizer, parameters).items()}
    return found


def _held(optimizer: AnyOptimizer, parameters: Mapping[str, nn.Parameter]) -> Mapping[str, nn.Parameter]:
    return optimizer.held(parameters) if isinstance(optimizer, Optimizer) else parameters


def _paged(part: Any, p: Tensor, state: dict[str, Any]) -> dict[str, Any]:
    """Large moments back in paged memory, where the optimizer had them."""
    if getattr(part, "is_paged", False) and p.is_cuda:
        for entry in ("state1", "state2"):
            buffer = part.get_state_buffer(p, dtype=state[entry].dtype)
            state[entry] = buffer.copy_(state[entry])
    return state


def _parts(optimizer: AnyOptimizer) -> Sequence[torch.optim.Optimizer]:
    return optimizer.parts if isinstance(optimizer, Optimizer) else (optimizer,)


def _states(optimizer: AnyOptimizer, parameters: Mapping[str, nn.Parameter]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    parameters = _held(optimizer, parameters)
    for part in _parts(optimizer):
        for name, p in parameters.items():
            if p in part.state:
                yield name, part.state[p]
