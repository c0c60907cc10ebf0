"""Add the hashes of new families' frozen tasks to tests/envs/frozen_tasks.json.

    python scripts/freeze_tasks.py

Only what is missing is added. An entry that no longer agrees is reported and left alone: frozen tasks
must not change, because saved curves are bound to them.
"""

import json
import sys
from pathlib import Path

from metarl.envs import FAMILIES, family_class, make_family

PATH = Path(__file__).resolve().parent.parent / "tests" / "envs" / "frozen_tasks.json"
TASKS = 100  # of each split; a prefix of the one sequence


def main() -> None:
    """Write the file, sorted; exit with 1 if an entry disagrees with the code."""
    frozen = json.loads(PATH.read_text()) if PATH.exists() else {}
    changed = []
    for name in FAMILIES:
        for preset in family_class(name).presets:
            family = make_family(name, preset)
            hashes = {split: family.fixed(split, TASKS).sha256() for split in family.splits}
            if frozen.setdefault(name, {}).setdefault(preset, hashes) != hashes:
                changed.append(f"{name} ({preset})")
    PATH.write_text(json.dumps(frozen, indent=2, sort_keys=True) + "\n")
    if changed:
        sys.exit(f"not the tasks they were: {', '.join(changed)}; mend the code, the entries stay as they are")


if __name__ == "__main__":
    main()
