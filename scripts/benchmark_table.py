"""All committed benchmarks on one page, results/benchmarks/README.md: `python scripts/benchmark_table.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "results" / "benchmarks"
ABOUT = """# Benchmarks

Both sides of a ratio ran in one process (ranks: in processes of their own), in turn; figures are medians over the
repeats, with the smallest and the largest ratio beside them. The machine is shared: absolute rates vary by a third
from hour to hour."""


def section(path: Path) -> list[str]:
    """A file's table, with how it was measured."""
    document: dict[str, Any] = json.loads(path.read_text())
    python = ".venv-peers/bin/python" if "learn2learn" in document["versions"] else "python"
    lines = [f"## {path.stem}", "", f"`{python} scripts/benchmark_{path.stem}.py --json {path.name}`", ""]
    lines += ["|what|ours|other side|ratio|target||", "|---|---|---|---|---|---|"]
    verdicts = {True: "met", False: "**not met**", None: ""}
    for row in document["rows"]:
        spread = row["spread"]
        ends = f" ({spread[0]:.3g} to {spread[1]:.3g})" if isinstance(spread, list) else ""
        cells = [row["name"], f"{row['value']:.4g}", f"{row['baseline']:.4g}", f"**{row['ratio']:.3g}**{ends}"]
        lines.append("|" + "|".join([*cells, str(row["target"] or ""), verdicts[row["met"]]]) + "|")
    machine: dict[str, Any] | str = document["machine"]
    if isinstance(machine, dict):
        machine = f"{machine['cores']} cores ({machine['cpu']}), OMP_NUM_THREADS {machine['threads']}"
    repeats = " or ".join(map(str, sorted({row["repeats"] for row in document["rows"]})))
    named = ", ".join(f"{name} {version}" for name, version in document["versions"].items() if name != "metarl")
    return [*lines, "", f"{repeats} repeats, {machine}; {named}.", ""]


def main() -> None:
    """Write the page."""
    lines = [ABOUT, "", *(line for path in sorted(FOLDER.glob("*.json")) for line in section(path))]
    (FOLDER / "README.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
