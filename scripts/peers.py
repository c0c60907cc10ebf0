"""learn2learn, for what compares it with metarl; `scripts/setup_peers.sh` installs it into a virtual environment.

.venv-peers/bin/python scripts/peers.py     say what there is
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from types import ModuleType

import torch

HELD: list[torch.library.Library] = []  # declarations last as long as the object that made them


def learn2learn() -> ModuleType:
    """The package.

    It imports torchvision, which describes two operators of its compiled part; where that part does not load (the
    build from PyPI on a torch for CPUs alone) they are declared first. Nothing here calls them.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        HELD.append(library)
    with contextlib.redirect_stderr(io.StringIO()):  # gym says on stderr that it is not maintained
        return importlib.import_module("learn2learn")


if __name__ == "__main__":
    import metarl

    print(f"learn2learn {learn2learn().__version__} and metarl {metarl.__version__} on torch {torch.__version__}")
