"""A file of pairs -> the landmarks that lines join."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from lmk.runtime.errors import UserError


def read_skeleton(path: Path) -> tuple[tuple[str, str], ...]:
    """Read the pairs of landmarks that lines join: JSON `[["nose", "tail"], …]`, else CSV.

    A CSV has a pair a line, without a header. Raises UserError when the file is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        is_json = path.suffix.lower() == ".json"
        rows = (
            json.loads(text) if is_json else [row for row in csv.reader(text.splitlines()) if row]
        )
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); save it as UTF-8 CSV or JSON"
        ) from error
    pairs = []
    for row in rows if isinstance(rows, list) else [rows]:
        if not (isinstance(row, list) and len(row) == 2 and all(isinstance(n, str) for n in row)):
            raise UserError(f"{path}: got {row}, expected pairs of landmark names: nose,tail")
        pairs.append((row[0].strip(), row[1].strip()))
    if not pairs:
        raise UserError(f"{path}: got no pair, expected pairs of landmark names: nose,tail")
    return tuple(pairs)
