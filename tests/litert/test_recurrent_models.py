"""Recurrent networks as they are published, or as PyTorch exports them, over several runs of one interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from .repeated import KERNELS, Arrays, compiled, runner, worst_error
from .running import relative_error, source_results

SAMPLES = {8000: 256, 16000: 512}  # of a chunk, by sampling rate
CONTEXT = {8000: 32, 16000: 64}  # samples of the chunk before that go in front


@pytest.fixture(scope="module")
def silero() -> Any:
    """`silero("silero_vad.onnx")`: that model of the package silero-vad."""
    from real_models import packages, registry

    def fetch(name: str) -> onnx.ModelProto:
        try:
            return onnx.load(registry.member(packages.SILERO, f"silero_vad/data/{name}"))
        except registry.Unavailable as error:
            pytest.skip(str(error))

    return fetch


@pytest.mark.registry
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("silero_vad.onnx", 16000),
        ("silero_vad.onnx", 8000),
        ("silero_vad_16k_op15.onnx", 16000),
        ("silero_vad_op18_ifless.onnx", 16000),
        ("silero_vad_op18_ifless.onnx", 8000),
    ],
)
def test_silero_voice_activity(silero: Any, name: str, kernels: Any, rate: int) -> None:
    """Its graph chooses the network by the sampling rate (an input), and each chunk takes the state that the last one left."""
    source = silero(name)
    length = SAMPLES[rate] + CONTEXT[rate]
    run = runner(compiled(source, {"input": (1, length), "state": (2, 1, 128)}), kernels)
    noise = np.random.default_rng(0)
    states = [np.zeros((2, 1, 128), np.float32)] * 2
    for loudness in (0.02, 0.1, 0.3, 0.1):
        sound = {"input": noise.normal(0, loudness, (1, length)).astype(np.float32), "sr": np.array(rate, np.int64)}
        expected = source_results(source, {**sound, "state": states[0]})
        made = run({**sound, "state": states[1]})
        states = [expected["stateN"], made["stateN"]]
        assert relative_error(expected["output"], made["output"]) < 1e-4
        assert relative_error(*states) < 1e-4


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_pytorch_layers(kind: str) -> None:
    """Two bidirectional layers with the batch in front, as torch.onnx writes them, against torch itself."""
    torch = pytest.importorskip("torch")

    class Network(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers = getattr(torch.nn, kind)(6, 10, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, x: Any) -> Any:
            y, state = self.layers(x)
            return (y, *state) if kind == "LSTM" else (y, state)

    torch.manual_seed(0)
    network = Network().eval()
    source = torch.onnx.export(network, (torch.zeros(2, 40, 6),), dynamo=True, verbose=False).model_proto
    noise = np.random.default_rng(0)
    feeds: list[Arrays] = [{source.graph.input[0].name: noise.normal(size=(2, 40, 6)).astype(np.float32)} for _ in range(2)]
    names = [o.name for o in source.graph.output]
    with torch.no_grad():
        results = [network(torch.from_numpy(a)) for fed in feeds for a in fed.values()]
    expected = [dict(zip(names, (t.numpy() for t in made), strict=True)) for made in results]
    assert worst_error(source, feeds, expected) < 1e-5
