"""Rows of the proof: what was compared, how far apart, how far it may be."""

import json
import math
from dataclasses import asdict, dataclass

OK, FAILED, NOT_CHECKED = "ok", "FAILED", "NOT CHECKED"


@dataclass
class Row:
    """One comparison."""

    runtime: str
    model: str
    type: str
    figure: str
    value: float | None
    tolerance: float | None
    verdict: str
    note: str = ""


class Table:
    """Collects rows and prints them."""

    def __init__(self):
        self.rows = []

    def within(self, runtime, model, type, figure, value, tolerance, note=""):
        """A figure that must be at most `tolerance`; NaN is more than anything."""
        value = float(value)
        verdict = OK if math.isfinite(value) and value <= tolerance else FAILED
        self.rows.append(Row(runtime, model, type, figure, value, tolerance, verdict, note))

    def equal(self, runtime, model, type, figure, is_equal, note=""):
        """Something that must be the same."""
        self.rows.append(Row(runtime, model, type, figure, None, None, OK if is_equal else FAILED, note))

    def failed(self, runtime, model, type, figure, error):
        """A check that ended with an error."""
        self.rows.append(Row(runtime, model, type, figure, None, None, FAILED, f"{type_name(error)}: {error}"[:300]))

    def not_checked(self, runtime, reason):
        """A runtime that is not here."""
        self.rows.append(Row(runtime, "all", "all", "everything", None, None, NOT_CHECKED, reason))

    def verdicts(self, verdict):
        """Rows of one verdict."""
        return [row for row in self.rows if row.verdict == verdict]

    def print(self):
        """The table as text."""
        header = ["runtime", "model", "type", "figure", "value", "at most", "verdict", ""]
        number = lambda value: "" if value is None else f"{value:.3g}"
        lines = [header] + [
            [r.runtime, r.model, r.type, r.figure, number(r.value), number(r.tolerance), r.verdict, r.note]
            for r in self.rows
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
        for line in lines:
            cells = [cell.ljust(width) for cell, width in zip(line, widths)]
            print("  ".join(cells + line[-1:]).rstrip())

    def write_json(self, path):
        """The table as one JSON object."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"rows": [asdict(row) for row in self.rows]}, file, indent=1)


def type_name(error):
    """What kind of error, in a word."""
    return type(error).__name__
