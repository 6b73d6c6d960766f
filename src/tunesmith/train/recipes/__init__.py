"""Recipes: one flat loop a file, read top to bottom; arithmetic, I/O and defaults are called.

In comes a stage's Spec, its input folders and a Workspace; out goes a checkpoint. Read sft.py first.
"""
