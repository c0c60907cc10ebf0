"""Checkpoints put into a run folder by hand."""

import hashlib

from metarl.runs import checkpoints


def plant_bytes(folder, iteration, data):
    """Have bytes be the last checkpoint of a run, as its manifest says; the others are removed."""
    digest = hashlib.sha256(data).hexdigest()
    sizes = {f"{log}_bytes": (folder / f"{log}.jsonl").stat().st_size for log in ("metrics", "timings")}
    manifest = checkpoints.Manifest(f"{iteration:08d}-{digest[:16]}.pt", digest, iteration, **sizes)
    (folder / "checkpoints" / manifest.file).write_bytes(data)
    checkpoints.point(folder / "checkpoints", manifest)
    checkpoints.tidy(folder / "checkpoints", {manifest.file})


def plant(folder, iteration, state):
    """The same for a state, as versions before 0.2 saved it: it does not say whose it is."""
    plant_bytes(folder, iteration, checkpoints.pack(state))
