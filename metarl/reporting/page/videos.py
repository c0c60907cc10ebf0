"""Films in the run folders."""

from __future__ import annotations

import base64
import html
import shutil
from collections.abc import Mapping
from pathlib import Path

from metarl.errors import UserError
from metarl.reporting.page.markup import Section
from metarl.runs.run import Run

INLINED = 8 * 2**20  # bytes of a video that is still put into the page


def video_section(runs: Mapping[str, Run], out: Path) -> list[Section]:
    """Every video in the run folders: inlined where small, else copied beside the page."""
    shown = []
    for i, (name, run) in enumerate(runs.items()):
        for path in sorted(run.folder.glob("*.mp4")):
            try:
                if path.stat().st_size < INLINED:
                    source = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
                else:
                    source = f"videos/{i}-{path.name}"
                    (out / "videos").mkdir(exist_ok=True)
                    shutil.copyfile(path, out / source)
            except OSError as error:
                raise UserError(f"cannot copy {path} into {out}: {error.strerror}") from None
            caption = html.escape(f"{name}: {path.name}")
            shown.append(
                f'<figure><video controls preload="metadata" src="{html.escape(source)}" aria-label="{caption}">'
                f"</video><figcaption>{caption}</figcaption></figure>"
            )
    return [Section("Videos", f'<div class="videos">{"".join(shown)}</div>' if shown else "")]
