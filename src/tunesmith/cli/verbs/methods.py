"""tunesmith methods: which weights can be trained, and when to choose which."""

from __future__ import annotations

import click

from tunesmith.cli.show import show


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def methods(as_json: bool) -> None:
    """Show every training method: what it trains, what it reads, when to use it."""
    from tunesmith.model.methods.spec import methods_facts

    found = methods_facts()
    if as_json:
        show(found, as_json)
        return
    lines = []
    for m in found:
        merged = "merged for serving" if m["mergeable"] else f"served {m['servable']}"
        lines += [
            f"{m['name']}: {m['trains']}",
            f"    {merged}; default rate {m['default_lr']:g} ({m['lr_source']})",
            f"    when: {m['use']}",
            f"    reads: {', '.join(m['values'])}" + (f'; pip install "tunesmith[{m["extra"]}]"' if m["extra"] else ""),
        ]
    show("\n".join(lines), as_json)
