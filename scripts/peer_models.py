"""The TFLite file that another converter, or the model's author, makes of a recipe's model."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from convert_worker import tflite_converter
from real_models import packages
from real_models.recipes import Export, Recipe
from real_models.registry import cache_folder, member

WORKER = Path(__file__).with_name("convert_worker.py")


class NoPeer(Exception):
    """There is nothing to compare with; says why."""


def convert(model: Recipe, export: Export, output: Path, litert_torch_python: Path) -> str:
    """Writes `output` and returns who made it.

    Raises:
        NoPeer: The other converter is not installed, does not take such a model, or failed.
    """
    if model.name.startswith("basic-pitch"):
        shutil.copyfile(member(packages.BASIC_PITCH, "basic_pitch/saved_models/icassp_2022/nmp.tflite"), output)
        return "its author"
    if model.framework == "keras":
        output.write_bytes(tflite_converter(Path(export.source))())
        return "TFLiteConverter"
    if model.framework == "torch" and ".py:" in export.source:
        _litert_torch(export, output, litert_torch_python)
        return "litert-torch"
    raise NoPeer("takes neither ONNX nor TorchScript")


def peer_python(peer: str) -> Path:
    """The interpreter of a peer's environment, where `bench_convert.py --setup` puts it."""
    return cache_folder() / "environments" / peer / "bin" / "python"


def litert_torch_python() -> Path:
    """The one that has litert-torch."""
    return peer_python("litert-torch")


def _litert_torch(export: Export, output: Path, python: Path) -> None:
    if not python.exists():
        raise NoPeer("litert-torch is not installed (bench_convert.py --setup)")
    import torch

    from edgekit.contract import TensorSpec

    specs = [TensorSpec.parse(text) for text in export.inputs]
    example = tuple(torch.ones([int(d) for d in spec.shape], dtype=getattr(torch, spec.dtype)) for spec in specs)
    path, factory = export.source.rsplit(":", 1)
    specification = importlib.util.spec_from_file_location("recipe_networks", path)
    assert specification is not None
    assert specification.loader is not None
    networks = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(networks)
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(torch.export.export(getattr(networks, factory)(), example), Path(folder, "model.pt2"))
        layout = "nhwc" if example[0].ndim == 4 else "keep"
        done = subprocess.run([python, WORKER, "litert-torch", folder, output, layout], capture_output=True, text=True)
        if done.returncode:
            raise NoPeer("litert-torch: " + (done.stderr.strip().splitlines() or ["no message"])[-1])
        json.loads(done.stdout.strip().splitlines()[-1])
