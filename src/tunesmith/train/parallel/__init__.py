"""One training on several ranks: each takes whole examples of every batch, and the sum of all is one process's.

In comes an Exec and the variables that torchrun sets; out goes a World, whose methods a recipe calls where ranks must
agree. Read world.py first (one process, and what every engine must do), then engines.py, ddp.py, fsdp2.py and zero.py.
"""
