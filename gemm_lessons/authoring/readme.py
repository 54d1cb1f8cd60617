"""README's table and picture of the ladder, made from the recorded results.

<!-- ladder:begin -->  everything between these two lines is generated  <!-- ladder:end -->
"""

from __future__ import annotations

from pathlib import Path

from gemm_lessons import plots
from gemm_lessons.measure import tables
from gemm_lessons.measure.results import Record, recorded

BEGIN, END = "<!-- ladder:begin -->", "<!-- ladder:end -->"
WORKLOADS = ("S", "S-x16")  # few tokens, then many; the others are in the results file
PICTURED = "S-x16"
PICTURE = Path("docs/ladder.svg")
NOT_RECORDED = (
    "Not recorded yet. `make bench` on a GPU measures the ladder and writes its table and picture here."
)


class MarkerError(ValueError):
    """The text has no place for a generated block."""


def source_of(record: Record) -> str:
    """What a generated picture was made from, kept inside the file."""
    return f"{record.label}, commit {record.machine['commit']}, {record.date}"


def pictured(record: Record) -> str:
    """The workload that the picture shows."""
    return PICTURED if PICTURED in record.problems else next(iter(record.problems))


def block(record: Record | None) -> str:
    """The text between the markers."""
    if record is None:
        return NOT_RECORDED
    versions = record.machine["versions"]
    made_of = ", ".join(f"{name} {versions[name]}" for name in ("numba-cuda", "torch") if name in versions)
    caption = f"Useful TFLOP/s of every step on {pictured(record)}, measured on {record.label}"
    return "\n\n".join(
        [
            f"![{caption}]({PICTURE.as_posix()})",
            *(tables.ladder(record, name).markdown() for name in WORKLOADS if name in record.problems),
            f"Recorded {record.date[:10]} on {record.machine['device']},"
            f" driver {record.machine['driver'] or 'unknown'}, {made_of}, commit {record.machine['commit']}.",
        ]
    )


def replace_block(text: str, content: str) -> str:
    """The text with the part between the markers replaced.

    Raises:
        MarkerError: a marker is missing, doubled, or they stand in the wrong order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise MarkerError(f"the text needs {BEGIN} and, after it, {END}, each once")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def stale(root: Path, record: Record | None) -> list[str]:
    """Which generated files do not match the record, as relative paths."""
    found = []
    text = (root / "README.md").read_text(encoding="utf-8")
    if replace_block(text, block(record)) != text:
        found.append("README.md")
    # why not byte for byte: another version of Matplotlib draws the same picture with other bytes
    picture = root / PICTURE
    drawn = picture.read_text(encoding="utf-8") if picture.exists() else ""
    if record is not None and source_of(record) not in drawn:
        found.append(PICTURE.as_posix())
    return found


def write(root: Path, record: Record | None) -> None:
    """Write the block and, if anything is recorded, the picture."""
    readme = root / "README.md"
    text = replace_block(readme.read_text(encoding="utf-8"), block(record))
    if record is not None:
        figure = plots.ladder(
            record, PICTURED if PICTURED in record.problems else next(iter(record.problems))
        )
        plots.save(figure, root / PICTURE, source=source_of(record))
    readme.write_text(text, encoding="utf-8")


def newest() -> Record | None:
    """The record that README shows: the newest one in float32."""
    return recorded("float32")
