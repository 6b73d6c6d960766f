"""Documents to passages, and from passages a corpus or question-answer pairs, each with its source and its approval.

In: PDF, DOCX, HTML, Markdown, text and glossary files. Out: `passages`, `pairs`, and `made` (what check reads).
Read stages.py first, then documents.py; blocks.py says what every reader hands over.
"""
