"""The precision search: budgets, the order of trials, what is remembered; sensitivities on a network whose answer is known."""

import json

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgekit import hub
from edgekit.errors import InputError
from edgekit.quantize import Calibration, Recipe, condition
from edgekit.quantize.layers import kept_values, names_below
from edgekit.quantize.search import ACCURACY, CHANGED, NOISE, Budget, Journal, Trial, search
from edgekit.quantize.sensitivity import Sensitivity, sensitivities

RNG = np.random.default_rng(9)
NAMES = [f"n{i:02}" for i in range(40)]
RANKING = [Sensitivity(name, "Conv", 1 / (i + 1)) for i, name in enumerate(NAMES)]


class Network:
    """Loses a known amount for every node in int8; counts what it is asked."""

    def __init__(self, losses):
        self.losses = losses
        self.asked = []

    def __call__(self, recipe):
        self.asked.append(dict(recipe.layers))
        drop = sum(loss for name, loss in self.losses.items() if recipe.precision_of(name) == "int8")
        return Trial(dict(recipe.layers), drop)

    def search(self, budget, recipe=None, folder=None, ranking=RANKING, **options):
        journal = Journal({"network": sorted(self.losses)}, folder)
        return search(recipe or Recipe(), lambda: ranking, self, Budget(budget), ACCURACY, journal=journal, **options)


def test_plain_int8_is_enough_where_it_meets_the_budget():
    network = Network({"n00": 0.1})
    found = network.search(0.5)
    assert found.met
    assert found.recipe.layers == {}
    assert len(network.asked) == 1
    assert found.ranking == (), "nothing was ranked for nothing"


@pytest.mark.parametrize("needed", [{"n00"}, {"n02", "n05"}, {"n00", "n07", "n31"}, set(NAMES)])
def test_the_fewest_nodes_stay_in_float(needed):
    network = Network(dict.fromkeys(needed, 1.0))
    found = network.search(0.5)
    assert found.met
    assert set(found.recipe.layers) == needed
    assert len(network.asked) <= (90 if len(needed) == len(NAMES) else 50)


def test_the_best_attempt_is_kept_where_no_recipe_meets_the_budget():
    network = Network({"n00": 2.0, "elsewhere": 1.0})
    found = network.search(0.5)
    assert not found.met
    assert found.best.drop == 1.0
    assert "n00" in found.recipe.layers
    assert "NOT within" in found.sentence()


def test_layers_that_the_recipe_names_stay():
    network = Network({"n03": 1.0})
    found = network.search(0.5, Recipe(layers={"n20": "int16x8"}))
    assert found.recipe.layers == {"n20": "int16x8", "n03": "float"}


def test_no_trial_begins_after_the_time_is_over():
    network = Network(dict.fromkeys(NAMES, 1.0))
    found = network.search(0.5, seconds=0.0)
    assert len(network.asked) == 1
    assert not found.met
    assert "after 0 minutes" in found.sentence()


def test_a_search_that_was_stopped_goes_on(tmp_path):
    needed = dict.fromkeys(["n02", "n05", "n11"], 1.0)
    network = Network(needed)
    first = network.search(0.5, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:3], lines[3][:20]]))  # killed while it wrote the fourth
    again = Network(needed)
    second = again.search(0.5, folder=tmp_path)
    assert second.recipe == first.recipe
    assert len(again.asked) == len(network.asked) - 3
    assert len(file.read_text().splitlines()) >= len(lines)
    other = Network({"n02": 1.0})
    other.search(0.5, folder=tmp_path)
    assert other.asked[0] == {}, "another question finds nothing of it"


def test_what_was_found_can_be_written_down():
    found = Network(dict.fromkeys(["n02", "n05"], 1.0)).search(0.5)
    document = json.loads(json.dumps(found.to_json()))
    assert document["in_float"] == ["n02", "n05"]
    assert [point["float"] for point in document["curve"]] == sorted(point["float"] for point in document["curve"])


@pytest.mark.parametrize(
    ("measure", "gate"),
    [(ACCURACY, ("accuracy_drop", 0.005)), (CHANGED, ("top1_agreement", 0.995)), (NOISE, ("sqnr_db", 23.0103))],
)
def test_a_budget_is_a_gate(measure, gate):
    assert Budget(0.5).gate(measure) == pytest.approx(gate[1:]) or Budget(0.5).gate(measure) == (gate[0], pytest.approx(gate[1]))


@pytest.mark.parametrize("percent", [-1, 101, float("nan"), float("inf")])
def test_a_budget_is_a_percentage(percent):
    with pytest.raises(InputError, match="budget"):
        Budget(percent)


def wide_and_narrow():
    """Two branches: one whose channels differ a thousand times in size, which int8 ruins, and one that it does not."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]>
        g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {
            wide = Conv(x, scale)  bad = Conv(wide, back)
            tame = Conv<pads=[1,1,1,1]>(x, w)  soft = Relu(tame)
            y = Add(bad, soft)
        }""")
    sizes = np.array([1e-3, 1, 1, 1e3], np.float32)
    constants = {
        "scale": np.diag(sizes).reshape(4, 4, 1, 1),
        "back": np.diag(1 / sizes).reshape(4, 4, 1, 1),
        "w": RNG.normal(size=(4, 4, 3, 3)) / 10,
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(c.astype(np.float32), name) for name, c in constants.items())
    feeds = [{"x": RNG.normal(size=(1, 4, 8, 8)).astype(np.float32)} for _ in range(32)]
    return hub.prepare(ir.from_proto(model)), Calibration(feeds, "npz", "noise", "")


def test_the_nodes_that_lose_most_come_first():
    graph, calibration = wide_and_narrow()
    ready = condition(graph, calibration, Recipe(equalize="never", ranges="minmax"))
    ranking = sensitivities(ready, calibration.feeds[:8])
    assert {each.name for each in ranking[:2]} == {"wide", "bad"}
    assert {each.name for each in ranking} == {"wide", "bad", "soft", "y"}, "a Conv and its Relu are one"
    assert ranking[0].error > 100 * next(each.error for each in ranking if each.name == "soft")


def test_what_stays_in_float_is_not_rounded():
    graph, calibration = wide_and_narrow()
    ready = condition(graph, calibration, Recipe(equalize="never"))
    changed = ready.graph(Recipe(layers={"wide": "float", "bad": "float"}))
    constants = {name: value.const_value.numpy() for name, value in changed.graph.initializers.items()}
    exact = {name: value.const_value.numpy() for name, value in ready.exact.graph.initializers.items()}
    np.testing.assert_array_equal(constants["scale"], exact["scale"])
    assert not np.array_equal(constants["w"], exact["w"])


def test_a_node_and_its_activation_go_together():
    graph, _ = wide_and_narrow()
    for named in ("tame", "soft"):
        assert kept_values(graph, Recipe(layers={named: "float"})) == {"tame": "float", "soft": "float"}
    below = names_below(graph, Recipe(layers={"tame": "float"}))
    assert below.precision_of("soft/sum") == "float"
    assert below.precision_of("wide") == below.precision_of("y") == "int8"
