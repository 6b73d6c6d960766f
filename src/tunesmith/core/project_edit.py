"""Write a value into `tunesmith.yaml` where a person can see it, and leave every other line as it was."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from tunesmith.core.canonical import write_atomic
from tunesmith.core.errors import ProjectFileError
from tunesmith.core.project_file import load


def set_values(path: Path, values: dict[str, Any]) -> None:
    """`values` by dotted key: {"data.shape": "sharegpt"}. Comments, order and quoting stay.

    Raises ProjectFileError, and writes nothing, if the file would not hold with them.
    """
    before = path.read_bytes()
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # a long line stays one
    yaml.indent(mapping=2, sequence=4, offset=2)
    tree = yaml.load(before.decode("utf-8-sig"))
    for key, value in values.items():
        *sections, last = key.split(".")
        section = tree
        for name in sections:
            if section.get(name) is None:
                section[name] = CommentedMap()
            section = section[name]
        section[last] = value
    text = io.StringIO()
    yaml.dump(tree, text)
    write_atomic(path, text.getvalue().encode("utf-8"))
    try:
        load(path)
    except ProjectFileError:
        write_atomic(path, before)
        raise
