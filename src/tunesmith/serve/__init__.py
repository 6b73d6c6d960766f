"""The wire: OpenAI's HTTP shapes to prompts, and answers back.

In comes a bundle and requests over HTTP, or rows of a file; out go answers, each with a trace.
Requests are decoded together, one token of every running request a step. Read server.py first, then engine.py.
"""
