"""Schedule-free AdamW: averaging in place of a falling rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPS = 1e-8


class ScheduleFree(torch.optim.Optimizer):  # type: ignore[misc]  # torch is untyped here
    """Gradients are taken at y, steps are made on z, and x, a weighted mean of all z, is the model.

    y = (1 - b1) z + b1 x;  v = b2 v + (1 - b2) g^2;  z = z - lr (g / (sqrt(v / (1 - b2^t)) + eps) + decay y);
    x = (1 - c) x + c z with c = r^2 / sum of r^2 so far, r the largest rate so far.

    The model's parameters hold y while training; `average` gives x. Both z and x are kept, 4 bytes a weight more
    than AdamW keeps, where the authors' code rebuilds x from y and z: judging the model then never disturbs the
    training by rounding.
    Source: Defazio et al. 2024, arXiv:2405.15682, algorithm 1; weights c as in their schedulefree package.
    """

    def __init__(self, groups: Any):
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            lr, decay = group["lr"], group["weight_decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state |= {"z": p.clone(), "x": p.clone(), "exp_avg_sq": torch.zeros_like(p)}
                    state |= {"step": 0, "largest": 0.0, "weights": 0.0}
                state["step"] += 1
                state["largest"] = max(state["largest"], lr)
                state["weights"] += state["largest"] ** 2
                share = state["largest"] ** 2 / state["weights"] if state["weights"] else 0.0
                z, x, v = state["z"], state["x"], state["exp_avg_sq"]
                v.mul_(BETAS[1]).addcmul_(p.grad, p.grad, value=1 - BETAS[1])
                spread = v.sqrt().div_(math.sqrt(1 - BETAS[1] ** state["step"])).add_(EPS)
                z.addcdiv_(p.grad, spread, value=-lr).add_(p, alpha=-lr * decay)
                x.lerp_(z, share)
                p.copy_(torch.lerp(z, x, BETAS[0]))

    def average(self, p: Tensor) -> Tensor:
        """x of one parameter; the parameter itself before its first step."""
        found: Tensor = self.state[p]["x"] if self.state.get(p) else p.detach()
        return found
