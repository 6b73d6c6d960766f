"""tunesmith merge: weights made of other weights."""

from __future__ import annotations

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.argument("checkpoints", nargs=-1, metavar="[CHECKPOINT]...")
@click.option(
    "--how",
    type=click.Choice(["whole", "average", "ties", "dare", "svd", "slerp"]),
    default=None,
    help="whole: one adapter into its base. The others combine several. Default: whole for one, average for several.",
)
@click.option(
    "--weights", default="", metavar="W,W", help="One for each. Default: equal, adding up to 1 (ties: 1 each)."
)
@click.option("--density", type=float, default=1.0, help="Of ties and dare: the share of each update that is kept.")
@click.option("--rank", type=int, default=0, help="Of the adapter that comes out. 0: exact, for an average only.")
@click.option("--seed", type=int, default=0, help="Of dare.")
@click.option("--prompts-of", type=int, default=None, metavar="N", help="Whose prompts the result answers to, from 1.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="Of whole weights.")
@click.option("--out", default=None, metavar="FOLDER", help="Write a copy there, for other programs.")
@common
def merge(
    checkpoints: tuple[str, ...],
    how: str | None,
    weights: str,
    density: float,
    rank: int,
    seed: int,
    prompts_of: int | None,
    precision: str,
    out: str | None,
    project: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Merge an adapter into whole weights, or several into one.

    CHECKPOINT is an id, an alias or another project's folder; without one, the newest that this project trained.
    The result is a checkpoint in the ledger: evaluate, gate and bundle take it with --checkpoint ID.
    """
    try:
        numbers = [float(w) for w in weights.split(",") if w.strip()]
    except ValueError as e:
        raise click.UsageError(f"--weights {weights}: not numbers with commas between") from e
    with opened(project, overrides, stoppable=True) as p:
        run = p.merge(
            *checkpoints,
            how=how,
            weights=numbers,
            density=density,
            rank=rank,
            seed=seed,
            prompts_of=None if prompts_of is None else prompts_of - 1,
            precision=precision,
            out=out,
        )
    show(run, as_json)
