"""What is installed, what is missing for what, and what this machine can run."""

from __future__ import annotations

import importlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgekit.telemetry import load_onnxruntime

# Import names where they differ from the distribution's.
_MODULES = {"ai-edge-litert": "ai_edge_litert.interpreter", "onnx-ir": "onnx_ir", "pillow": "PIL"}

_CPU_FEATURES = {
    # /proc/cpuinfo's flag → what it speeds up in the runtimes' kernels
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512-vnni (int8 dot products)",
    "avx_vnni": "avx-vnni (int8 dot products)",
    "asimd": "neon",
    "asimddp": "dotprod (int8 dot products)",
    "i8mm": "i8mm (int8 matrix products)",
    "asimdhp": "fp16 arithmetic",
}

_EXTRAS = {"keras": "Keras, .h5 and SavedModel sources", "torch": "PyTorch sources", "dev": "edgekit's own tests"}


@dataclass(frozen=True)
class Part:
    """One package that edgekit uses.

    Args:
        name: Of the distribution.
        extra: The extra that installs it; None for the core.
        needs: The versions that edgekit takes (`>=1.20`).
        installed: The version that is there, or None.
        state: `ok`, `missing`, `too old` (or otherwise outside of `needs`), or `broken: …` where importing fails.
    """

    name: str
    extra: str | None
    needs: str
    installed: str | None
    state: str


@dataclass(frozen=True)
class Diagnosis:
    """Parts, the machine, and what to do."""

    parts: tuple[Part, ...]
    machine: dict[str, Any]
    advice: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether everything that the core needs works; a missing extra is not an illness."""
        return all(part.state == "ok" for part in self.parts if part.extra is None)

    def to_json(self) -> dict[str, Any]:
        """What `edgekit doctor --json` prints (docs/doctor.md)."""
        parts = [dict(vars(part)) for part in self.parts]
        return {"healthy": self.healthy, "parts": parts, "machine": self.machine, "advice": list(self.advice)}


def diagnose() -> Diagnosis:
    """Look at the installation. The core's packages are imported; the extras', which take seconds, are not."""
    parts = tuple(_parts())
    advice = []
    for part in parts:
        if part.extra is None and part.state != "ok":
            advice.append(f"{part.name} is {part.state}: pip install --upgrade edgekit")
    for extra, purpose in _EXTRAS.items():
        lacking = [part.name for part in parts if part.extra == extra and part.state != "ok"]
        if lacking:
            advice.append(f"for {purpose}: pip install 'edgekit[{extra}]' ({', '.join(lacking)})")
    return Diagnosis(parts, _machine(), tuple(advice))


def _parts() -> Iterator[Part]:
    from packaging.requirements import Requirement

    for text in metadata.requires("edgekit") or ():
        requirement = Requirement(text)
        extra = re.search(r"extra == [\"'](\w+)[\"']", str(requirement.marker or ""))
        if (extra and extra[1] == "all") or requirement.name == "edgekit":
            continue
        needs = str(requirement.specifier)
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Part(requirement.name, extra and extra[1], needs, None, "missing")
            continue
        state = "ok" if requirement.specifier.contains(installed, prereleases=True) else "too old"
        if extra is None and state == "ok":
            state = _importable(requirement.name)
        yield Part(requirement.name, extra and extra[1], needs, installed, state)


def _importable(name: str) -> str:
    try:
        if name == "onnxruntime":
            load_onnxruntime()
        importlib.import_module(_MODULES.get(name, name.replace("-", "_")))
    except Exception as error:  # a broken binary raises anything
        return f"broken: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return "ok"


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": platform.machine(),
        "cores": os.cpu_count(),
        "cpu features": _cpu_features(),
        "LiteRT delegates": _litert_delegates(),
        "ONNX Runtime providers": _providers(),
    }


def _cpu_features() -> list[str]:
    if sys.platform == "darwin":
        listed = subprocess.run(["sysctl", "-a", "hw.optional"], capture_output=True, text=True, check=False).stdout
        return sorted(
            m[1].removeprefix("arm.") for m in re.finditer(r"hw\.optional\.([\w.]*(?:DotProd|I8MM|FP16|avx2)\w*): 1", listed)
        )
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return []
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return [meaning for flag, meaning in _CPU_FEATURES.items() if flag in flags]


def _litert_delegates() -> list[str]:
    """XNNPACK is built in; GPU accelerators are libraries beside the interpreter, whose presence says nothing of a GPU."""
    try:
        import ai_edge_litert
    except ImportError:
        return []
    folder = Path(next(iter(ai_edge_litert.__path__)))
    libraries = [f"{path.name} (library present)" for path in sorted(folder.glob("*Accelerator*"))]
    return ["xnnpack (built in)", *libraries]


def _providers() -> list[str]:
    try:
        onnxruntime = load_onnxruntime()
    except ImportError:
        return []
    return [p for p in onnxruntime.get_available_providers() if p != "AzureExecutionProvider"]  # a cloud client, not a device
