"""HDF5 models of Keras 2 in Keras 3.

Keras 3 reads many of them itself. The others fail on arguments that layers have since lost, although nearly always at a value
that asks for nothing. `repair` removes exactly those; an argument that does ask for something is an error that names it,
because dropping it would be another model.
"""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

from edgekit.errors import SourceError
from edgekit.sources.quiet import quiet

GONE = {
    "implementation": (0, 1, 2),  # how a recurrent kernel was computed, not what
    "groups": (1,),  # written for DepthwiseConv2D, whose grouping is given by its kind
    "time_major": (False,),
    "ragged": (False,),
    "sparse": (False,),
    "unit_forget_bias": (True, False),  # initial values, overwritten by the weights
    "autocast": (True, False),
    "keepdims": (False,),
    "output_mode": ("int",),
}
"""Arguments that Keras 3 layers have lost, and the values at which losing them changes nothing."""

BASE_LAYER = {"name", "trainable", "dtype", "batch_shape", "batch_input_shape", "input_shape", "batch_size", "weights"}
"""Arguments that any layer takes through `**kwargs`."""

TRAINING = {"initializer": "zeros", "regularizer": None, "constraint": None}
"""Suffixes of the arguments that matter only until a model is trained, and what to put in their place."""


def load_legacy(keras: Any, path: Path, config: dict[str, Any], spec: str, trust: bool) -> Any:
    """The model in an HDF5 file: as Keras reads it, or from its repaired config with the weights set by layer order."""
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=not trust)
    except Exception:  # whatever it was, the repaired config below either mends it or fails with the reason
        model = _rebuild(keras, repair(keras, config, spec), trust)
    import h5py
    from keras.src.legacy.saving.legacy_h5_format import load_weights_from_hdf5_group

    with h5py.File(path, "r") as file:
        load_weights_from_hdf5_group(file.get("model_weights", file), model)
    return model


def repair(keras: Any, config: dict[str, Any], spec: str) -> dict[str, Any]:
    """A copy of a Keras 2 model config that Keras 3 accepts.

    1. `time_major=False`, `implementation`, `groups=1` … (`GONE`) are dropped from layers that no longer take them.
    2. So is any other argument that the layer does not take, at None, False or an empty value.
    3. Initializers become zeros, regularizers and constraints None: the weights are loaded, and training is over.
    4. `Model`, the class name of Keras 1 and early 2, becomes `Functional`, inside of other models too.

    Raises:
        SourceError: A layer has an argument that Keras 3 has not, at a value that means something.
    """
    config = copy.deepcopy(config)
    _repair_node(keras, config, spec)
    return config


def _repair_node(keras: Any, node: Any, spec: str) -> None:
    if isinstance(node, list):
        for child in node:
            _repair_node(keras, child, spec)
    if not isinstance(node, dict):
        return
    if node.get("class_name") == "Model":
        node["class_name"] = "Functional"
    arguments = node.get("config")
    kind = node.get("class_name")
    if isinstance(kind, str) and isinstance(arguments, dict) and kind not in ("Functional", "Sequential"):
        _repair_arguments(keras, kind, arguments, spec)
    for child in node.values():
        _repair_node(keras, child, spec)


def _repair_arguments(keras: Any, kind: str, arguments: dict[str, Any], spec: str) -> None:
    for name in arguments:
        suffix = name.rpartition("_")[2]
        if suffix in TRAINING:
            arguments[name] = TRAINING[suffix]
    layer = getattr(keras.layers, kind, None)
    if layer is None:
        return
    known = {*inspect.signature(layer.__init__).parameters, *BASE_LAYER}
    for name in [name for name in arguments if name not in known]:
        value = arguments[name]
        if value in GONE.get(name, ()) or value is None or value is False or value in ([], {}, ""):
            del arguments[name]
        else:
            raise SourceError(
                f"the layer {kind} has {name}={value!r}, which Keras 3 does not have",
                where=f"{spec}, layer {arguments.get('name', kind)}",
                fix="convert the model to a SavedModel with the Keras that made it, and give edgekit that folder",
            )


def _rebuild(keras: Any, config: dict[str, Any], trust: bool) -> Any:
    from keras.src.legacy.saving import saving_options, saving_utils
    from keras.src.saving import serialization_lib

    known = {"Functional": keras.src.models.Functional, "Sequential": keras.Sequential, "Model": keras.Model}
    with (
        quiet(),
        saving_options.keras_option_scope(use_legacy_config=True),
        serialization_lib.SafeModeScope(not trust),
    ):
        return saving_utils.model_from_config(config, custom_objects=known)
