"""One measured line beside its floor, and the table of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Line:
    """`figure` and `floor` in `unit`, medians of the rounds; `ratio` of the two; `wanted` what it is judged by."""

    what: str
    figure: float
    unit: str
    floor_what: str = ""
    floor: float | None = None
    wanted: str = ""
    holds: bool | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Figure over floor."""
        return None if not self.floor else self.figure / self.floor

    def as_json(self) -> dict[str, object]:
        """All of it, with the ratio."""
        return asdict(self) | {"ratio": self.ratio}


def table(lines: list[Line]) -> str:
    """A Markdown table."""
    rows = ["| what | figure | floor of the same run | ratio | wanted | |", "|---|---:|---:|---:|---|---|"]
    for line in lines:
        floor = "" if line.floor is None else f"{_number(line.floor)} {line.unit} ({line.floor_what})"
        ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
        holds = "" if line.holds is None else ("yes" if line.holds else "**no**")
        note = f" ({line.note})" if line.note else ""
        rows.append(
            f"| {line.what}{note} | {_number(line.figure)} {line.unit} | {floor} | {ratio} | {line.wanted} | {holds} |"
        )
    return "\n".join(rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
