"""From the hub graph to the artifacts of one runtime in one precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgekit.contract import Artifact, Feeds
from edgekit.plan import Build
from edgekit.quantize import Calibration, Conditioned, Recipe
from edgekit.quantize.precision import AUTO

if TYPE_CHECKING:
    import onnx_ir


@dataclass(frozen=True)
class Maker:
    """Makes artifacts.

    Args:
        hub: The graph.
        calibration: Real inputs, for precisions that need them.
        ready: The graph that loses less to int8, and its ranges; None where nothing is quantized, or was already.
        recipe: How to quantize.
        searched: The same for `auto`.
        probes: A few inputs, for fp16.
    """

    hub: onnx_ir.Model
    calibration: Calibration | None
    ready: Conditioned | None
    recipe: Recipe
    probes: Sequence[Feeds]
    searched: Recipe | None = None

    def artifacts(self, build: Build, recipe: Recipe | None = None) -> Iterator[Artifact]:
        """Everything that one runtime gives in one precision; by another recipe than the maker's, where one is given."""
        recipe = recipe or (self.searched if build.precision == AUTO else None) or self.recipe
        quantized = "int8" if build.precision == AUTO else build.precision
        conditioned = self.ready if quantized in ("int8", "int16x8") else None
        graph = self.hub if conditioned is None else conditioned.graph(recipe)
        ranges, notes = ({}, ()) if conditioned is None else (conditioned.ranges, conditioned.notes)
        if build.runtime == "ort":
            from edgekit import ort

            made = ort.build(
                graph,
                quantized,
                calibration=self.calibration,
                recipe=recipe,
                ranges=ranges,
                probes=self.probes,
                formats=build.formats,
                name=f"model_{build.precision}",
            )
            for artifact in made:
                if artifact.format.removesuffix("-config") in build.formats:
                    yield replace(artifact, precision=build.precision, notes=(*artifact.notes, *notes))
            return
        from edgekit.litert import PRECISIONS as COMPILED
        from edgekit.litert import compile_hub
        from edgekit.quantize import quantize_litert
        from edgekit.quantize.layers import names_below

        floating = quantized if quantized in COMPILED else "fp32"
        compiled = compile_hub(
            graph,
            input_layout=build.input_layout,
            output_layout=build.output_layout,
            precision=floating,
            stored_integers=quantized == floating,
        )
        if quantized != floating:
            compiled = quantize_litert(compiled, quantized, self.calibration, recipe=names_below(graph, recipe), ranges=ranges)
        file, all_notes = f"model_{build.precision}.tflite", (*compiled.notes, *notes)
        yield Artifact(file, "tflite", build.precision, compiled.data, compiled.inputs, compiled.outputs, all_notes)
