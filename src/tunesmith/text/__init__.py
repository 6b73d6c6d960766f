"""Text in, token ids out: in come messages and a model folder's tokenizer files and chat template; out go
token ids with a loss mask, answer text, and a receipt that proves two renderers agree. Training, evaluation
and serving all use this one renderer, and nothing here loads torch. Read render.py first."""
