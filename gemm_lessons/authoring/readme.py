"""README's tables and its picture of the ladder, made from the recorded results.

<!-- ladder:begin -->  everything between these two lines is generated  <!-- ladder:end -->
<!-- tensor:begin -->  and between these  <!-- tensor:end -->
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gemm_lessons import plots
from gemm_lessons.measure import tables
from gemm_lessons.measure.results import Record, recorded

WORKLOADS = ("S", "S-x16")  # few tokens, then many; the others are in the results file
PICTURED = "S-x16"
PICTURE = Path("docs/ladder.svg")
BESIDE = {  # dtype -> the step for it, the library call that does the same, and one that does something else
    "bfloat16": ("hopper", "torch._grouped_mm", "torch.bmm padded"),
    "float8_e4m3fn": (
        "hopper_fp8",
        "torch._scaled_grouped_mm",
        "torch._scaled_grouped_mm, fast accumulation",  # its sums keep 14 bits
    ),
}
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


def made_of(record: Record) -> str:
    """Where a record comes from, in a sentence."""
    versions = record.machine["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("numba-cuda", "torch") if name in versions)
    return (
        f"Recorded {record.date[:10]} on {record.machine['device']},"
        f" driver {record.machine['driver'] or 'unknown'}, {named}, commit {record.machine['commit']}."
    )


def ladder_block(record: Record | None) -> str:
    """Picture and tables of the float32 ladder."""
    if record is None:
        return NOT_RECORDED
    caption = f"Useful TFLOP/s of every step on {pictured(record)}, measured on {record.label}"
    return "\n\n".join(
        [
            f"![{caption}]({PICTURE.as_posix()})",
            *(tables.ladder(record, name).markdown() for name in WORKLOADS if name in record.problems),
            made_of(record),
        ]
    )


def tensor_block(records: Mapping[str, Record]) -> str:
    """Tables of the fastest steps beside the libraries that do the same work."""
    found = []
    for dtype, (step, peer, other) in BESIDE.items():
        if dtype in records:
            table = tables.beside(records[dtype], step, peer, other)
            found += [table.markdown(), made_of(records[dtype])]
    return "\n\n".join(found) or NOT_RECORDED


def blocks(records: Mapping[str, Record]) -> dict[str, str]:
    """The text between each pair of markers."""
    return {"ladder": ladder_block(records.get("float32")), "tensor": tensor_block(records)}


def replace_block(text: str, name: str, content: str) -> str:
    """The text with the part between the markers of a name replaced.

    Raises:
        MarkerError: a marker is missing, doubled, or they stand in the wrong order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise MarkerError(f"the text needs {begin} and, after it, {end}, each once")
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def generated(text: str, records: Mapping[str, Record]) -> str:
    """README's text with every block made anew."""
    for name, content in blocks(records).items():
        text = replace_block(text, name, content)
    return text


def stale(root: Path, records: Mapping[str, Record]) -> list[str]:
    """Which generated files do not match the records, as relative paths."""
    found = []
    text = (root / "README.md").read_text(encoding="utf-8")
    if generated(text, records) != text:
        found.append("README.md")
    # why not byte for byte: another version of Matplotlib draws the same picture with other bytes
    picture = root / PICTURE
    drawn = picture.read_text(encoding="utf-8") if picture.exists() else ""
    if "float32" in records and source_of(records["float32"]) not in drawn:
        found.append(PICTURE.as_posix())
    return found


def write(root: Path, records: Mapping[str, Record]) -> None:
    """Write the blocks and, if the ladder is recorded, its picture."""
    readme = root / "README.md"
    text = generated(readme.read_text(encoding="utf-8"), records)
    if "float32" in records:
        record = records["float32"]
        plots.save(plots.ladder(record, pictured(record)), root / PICTURE, source=source_of(record))
    readme.write_text(text, encoding="utf-8")


def newest() -> dict[str, Record]:
    """The records that README shows: the newest one of each dtype."""
    found = {dtype: recorded(dtype) for dtype in ("float32", *BESIDE)}
    return {dtype: record for dtype, record in found.items() if record is not None}
