"""Films in the run folders."""

from __future__ import annotations

import base64
import html
import shutil
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from metarl.errors import UserError
from metarl.reporting.page.markup import Section
from metarl.runs.run import Run

INLINED = 8 * 2**20  # bytes of a film that is still put into the page
KINDS = {".gif": "image/gif", ".mp4": "video/mp4"}


def video_section(runs: Mapping[str, Run], out: Path) -> list[Section]:
    """Every film in the run folders: inlined where small, else copied beside the page."""
    shown = []
    for i, (name, run) in enumerate(runs.items()):
        for path in sorted(path for path in run.folder.iterdir() if path.suffix in KINDS):
            source, caption = html.escape(_source(path, i, out)), html.escape(f"{name}: {path.name}")
            film = f'<video controls preload="metadata" src="{source}" aria-label="{caption}"></video>'
            if path.suffix == ".gif":
                film = f'<img src="{source}" alt="{caption}">'
            shown.append(f"<figure>{film}<figcaption>{caption}</figcaption></figure>")
    return [Section("Videos", f'<div class="videos">{"".join(shown)}</div>' if shown else "")]


def _source(path: Path, i: int, out: Path) -> str:
    """Where the page finds a film: in itself, or in a file beside it that is named after the place of the run."""
    try:
        if path.stat().st_size < INLINED:
            return f"data:{KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
        beside = f"videos/{i}-{path.name}"
        (out / "videos").mkdir(exist_ok=True)
        shutil.copyfile(path, out / beside)
    except OSError as error:
        raise UserError(f"cannot copy {path} into {out}: {error.strerror}") from None
    return urllib.parse.quote(beside)
