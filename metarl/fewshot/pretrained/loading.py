"""Encoders by name: `timm:NAME`, `timm:NAME` with a file of weights, or a folder that holds both.

Files are safetensors, or tensors alone in PyTorch's format (`weights_only`); no code in them runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from metarl.documents import parse_json
from metarl.errors import UserError, one_line
from metarl.fewshot.pretrained.cache import FeatureCache
from metarl.fewshot.pretrained.encoder import Interpolation, Preprocessing, Pretrained
from metarl.naming import is_name, resolve
from metarl.nets.module import failing

FORMS = "--encoder timm:NAME, or --encoder file:PATH --arch NAME, or --encoder file:FOLDER of timm's (config.json)"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a folder


def load_pretrained(encoder: str, arch: str | None = None, cache: FeatureCache | None = None) -> Pretrained:
    """A frozen encoder.

    Args:
        encoder: `timm:NAME`, whose weights timm downloads or has; `file:PATH`, of weights, or a folder of timm's.
        arch: what the weights of a file belong to: a name of timm's, or your own `module:Name`, called without
            arguments, which gives a module from images to features.
        cache: where its features are remembered.

    Raises:
        UserError: there is no such encoder or file, timm is not installed, or the weights do not fit.
    """
    kind, _, name = encoder.partition(":")
    if kind not in ("timm", "file") or not name:
        raise UserError(f"--encoder is {encoder!r}; give {FORMS}")
    if kind == "timm":
        if arch is not None:
            raise UserError(f"--arch goes with --encoder file:PATH; {encoder} names its own")
        return _of_timm(name, cache)
    path = Path(name)
    if not path.exists():
        raise UserError(f"there is no file or folder {path}; give {FORMS}")
    config: Mapping[str, Any] = {}
    if path.is_dir():
        config, path = _folder(path)
        arch = arch or config.get("architecture")
    if not isinstance(arch, str):
        raise UserError(f"--encoder {encoder}: say what the weights belong to, with --arch NAME (a name of timm's)")
    body, settings = _made(arch)
    settings = dict(settings) | dict(config.get("pretrained_cfg") or {})
    _fill(body, _weights(path), path, str(settings.get("classifier") or ""))
    return Pretrained(body, preprocessing(settings), encoder, cache)


def preprocessing(settings: Mapping[str, Any]) -> Preprocessing:
    """Of an encoder whose settings have timm's names; what is not there is ImageNet's.

    Raises:
        UserError: they are no settings.
    """
    usual = Preprocessing()
    try:
        size = tuple(int(n) for n in settings.get("input_size", (3, *usual.size))[1:])
        mean, std = (tuple(float(x) for x in settings.get(n, getattr(usual, n))) for n in ("mean", "std"))
    except (TypeError, ValueError) as error:
        raise UserError(f"the encoder's settings cannot be read: {one_line(error)}") from None
    way = settings.get("interpolation", usual.interpolation)
    way = way if way in get_args(Interpolation) else usual.interpolation
    if len(size) != 2 or len(mean) != 3 or len(std) != 3 or min(size) < 1 or min(std) <= 0:
        raise UserError(f"the encoder's settings are not for pictures of three colours: {size}, {mean}, {std}")
    return Preprocessing((size[0], size[1]), mean, std, way)


def _timm() -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # the latter where its torchvision is not made for this torch
        raise UserError(
            f"encoders by a name of timm's need timm ({one_line(error)}): pip install 'metarl-suite[encoders]'"
        ) from None
    return timm


def _of_timm(name: str, cache: FeatureCache | None) -> Pretrained:
    timm = _timm()
    _check_name(timm, name)
    try:
        body = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # whatever a network or a hub may raise
        raise UserError(
            f"timm has no weights of {name} here ({one_line(error):.150}); take them where there is a network and "
            f"give --encoder file:PATH --arch {name}"
        ) from None
    return Pretrained(body, preprocessing(body.pretrained_cfg), f"timm:{name}", cache)


def _check_name(timm: Any, name: str) -> None:
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.partition('.')[0][:6]}*")[:5]
        raise UserError(f"timm has no architecture {name!r}{near and '; it has ' + ', '.join(near)}")


def _made(arch: str) -> tuple[nn.Module, Mapping[str, Any]]:
    """A network without weights, and its settings."""
    if is_name(arch):
        with failing(f"--arch {arch}; calling it failed"):
            body = resolve(arch, "--arch")()
        if not isinstance(body, nn.Module):
            raise UserError(f"--arch {arch} must give a torch.nn.Module, and gives a {type(body).__name__}")
        return body, getattr(body, "pretrained_cfg", {})
    timm = _timm()
    _check_name(timm, arch)
    body = timm.create_model(arch, pretrained=False, num_classes=0)
    return body, body.pretrained_cfg


def _folder(folder: Path) -> tuple[Mapping[str, Any], Path]:
    config = folder / "config.json"
    try:
        settings = parse_json(config.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{config} cannot be read ({one_line(error)}); a folder of timm's holds one") from None
    files = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not files or not isinstance(settings, dict) or not isinstance(settings.get("pretrained_cfg") or {}, dict):
        raise UserError(f"{folder} holds no {' or '.join(WEIGHTS)} beside a config.json of timm's")
    return settings, files[0]


def _weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, in single precision."""
    try:
        if path.suffix == ".safetensors":
            try:
                from safetensors.torch import load_file
            except ImportError as error:
                raise UserError(
                    f"{path} needs safetensors ({one_line(error)}): pip install 'metarl-suite[encoders]'"
                ) from None
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)  # which runs no code of the file's
    except UserError:
        raise
    except Exception as error:  # safetensors has an error type of its own, and torch's advice is to trust the file
        why = one_line(error) if path.suffix == ".safetensors" else "it is no file of tensors alone"
        raise UserError(f"{path} cannot be read as weights: {why}") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no tensors by name")
    return {str(k): v.float() if v.is_floating_point() else v for k, v in state.items()}


def _fill(body: nn.Module, state: Mapping[str, Tensor], path: Path, classifier: str) -> None:
    """Put weights into a network; those of a classifier that it has not are left out."""
    own = body.state_dict()
    missing = [name for name in own if name not in state]
    foreign = [name for name in state if name not in own and not (classifier and name.startswith(f"{classifier}."))]
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    for what, names in (("lacks", missing), ("has besides", foreign), ("has in another shape", wrong)):
        if names:
            raise UserError(f"the weights in {path} do not fit: it {what} {len(names)} tensors, such as {names[0]}")
    if bad := [name for name in own if state[name].is_floating_point() and not torch.isfinite(state[name]).all()]:
        raise UserError(f"the weights in {path} are not all numbers: {bad[0]}")
    body.load_state_dict({name: state[name] for name in own})
