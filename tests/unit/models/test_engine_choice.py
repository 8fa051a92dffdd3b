"""`execution=`: which engine a pair's models get, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from specbench.clock import CpuClock
from specbench.decoding.request import Request, StopTokens
from specbench.errors import ConfigError, ModelError
from specbench.hosting import load_method
from specbench.law import Guidance, Law
from specbench.models import engines
from specbench.models.decoder import LeanDecoder
from specbench.models.guided import GuidedModel
from specbench.models.image import CODE, Grid, Rows
from specbench.models.native import library
from specbench.models.pair import ModelPair
from specbench.models.static import StaticDecoder
from specbench.models.table import TableModel, markov_table
from specbench.rng import Streams
from specbench.runner import setup
from specbench.schema import catalog
from specbench.schema.build import instantiate
from specbench.schema.config import RunConfig
from tests.unit.models import tiny_checkpoints
from tests.unit.models.native import small
from tests.unit.models.recorded import Recorder

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GRID = Grid(rows=4, columns=5, row_end=90, ending=(91,))
FIRST, CODES = 10, 60


@pytest.fixture(scope="module")
def lean(tmp_path_factory):
    path = tiny_checkpoints.write(tmp_path_factory.mktemp("engines"), "llama3")
    module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    return LeanDecoder.of(module, "tiny", CPU, torch.float64)


class Captions:
    """The unconditional row is shorter than the caption's, or longer."""

    def __init__(self, bare):
        self.longest = len(bare)
        self._bare = bare

    def rows(self, prompt, count, unconditional="own"):
        rows = [tuple(prompt), self._bare][:count]
        width = max(map(len, rows))
        padding = tuple(width - len(row) for row in rows)
        tokens = [(0,) * gap + row for gap, row in zip(padding, rows, strict=True)]
        return Rows(torch.tensor(tokens), padding)


def guided(body, bare):
    model = GuidedModel(body, Captions(bare), GRID, FIRST, CODES, tiny_checkpoints.VOCAB)
    return model.under(Law(guidance=Guidance(2.0)))


def draw(models, method, law, seed):
    decoder = instantiate(load_method(method)["decoder"])
    decoder.prepare(models)
    request = Request(
        prompt=(5, 6, 7, 8),
        max_new_tokens=GRID.length,
        law=law,
        streams=Streams(seed, "picture"),
        stop=StopTokens(frozenset()),
    )
    return decoder.generate(models, request, CpuClock())


@pytest.mark.parametrize(
    "bare",
    [
        pytest.param((93, 94), id="short"),
        pytest.param((93, 94, 95, 93, 94, 95), id="long", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("method", ["ar", "sjd", "jacobi", "mc_sjd"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_pictures_are_the_same_over_static_rows(lean, bare, method, temperature):
    law = Law(temperature=temperature, guidance=Guidance(2.0))
    image = SimpleNamespace(
        grid=GRID, first_code=FIRST, codes=CODES, vectors=lambda: torch.randn(CODES, 4)
    )
    recorder = Recorder()
    plain = ModelPair("plain", guided(lean, bare), image=image)
    fast = guided(lean, bare)
    fast.take_body(StaticDecoder(lean, capture=recorder))
    assert fast.engine == "lean static"
    fast.body.least_capacity = 256
    static = ModelPair("static", fast, image=image)
    for seed in range(3):
        static.settle()
        expected, got = (draw(pair, method, law, seed) for pair in (plain, static))
        assert got.tokens == expected.tokens
        assert len(got.tokens) == GRID.length
        assert all(
            FIRST <= t < FIRST + CODES
            for t, f in zip(got.tokens, GRID.forced, strict=True)
            if f == CODE
        )
    assert sum(recorder.replays) > 2


def test_auto_is_eager_where_there_is_no_native_step_and_the_run_says_so(lean):
    pair = ModelPair("tiny", lean, lean, provenance={"target": {"engine": "lean"}})
    engines.switch(pair, "auto")
    assert pair.target is lean and pair.draft is lean
    assert pair.provenance == {"target": {"engine": "lean"}}
    (note,) = pair.about.notes
    assert "slower baseline" in note and ("float64" in note or "no C++ compiler" in note)


def test_auto_is_native_on_a_cpu_with_a_compiler(compiled):
    found = {"target": {"engine": "lean"}}
    pair = ModelPair("tiny", small.lean("grouped"), small.lean("biases"), provenance=found)
    engines.switch(pair, "auto")
    assert [model.engine for model in (pair.target, pair.draft)] == ["lean native"] * 2
    assert pair.provenance == {"target": {"engine": "lean native"}}
    assert pair.about.notes == ()
    assert engines.run_by(pair.target, "native").engine == "lean native"
    assert engines.run_by(pair.target, "eager") is pair.target.body


@pytest.mark.parametrize("engine", ["eager", "native"])
def test_a_mask_token_goes_with_the_model_to_every_engine(compiled, engine):
    model = small.lean("grouped")
    model.mask_token = 7
    assert engines.run_by(model, engine).mask_token == 7


def test_eager_is_eager_whatever_can_be_compiled():
    lean = small.lean("grouped")
    assert engines.run_by(lean, "eager") is lean


def test_the_native_step_is_refused_by_name_where_it_cannot_run(lean, monkeypatch):
    with pytest.raises(ModelError, match="execution=native cannot run"):
        engines.run_by(lean, "native")
    with pytest.raises(ModelError, match="computes on cuda"):
        engines.check_engine("native", CUDA, "any")
    monkeypatch.setenv("CXX", "no-such-compiler")
    library.load.cache_clear()
    with pytest.raises(ModelError) as caught:
        engines.run_by(small.lean("grouped"), "native")
    assert "no C++ compiler was found (no-such-compiler)" in str(caught.value)


def test_every_model_of_a_pair_is_switched_and_the_provenance_says_so(lean, monkeypatch):
    monkeypatch.setattr(
        engines, "run_by", lambda model, engine: StaticDecoder(model, engine=f"lean {engine}")
    )
    found = {"engine": "lean", "digest": "1"}
    pair = ModelPair(
        "tiny", lean, lean, more_drafts=(lean,), provenance={"target": found, "draft_2": found}
    )
    engines.switch(pair, "graph")
    assert {model.engine for model in (pair.target, *pair.drafts)} == {"lean graph"}
    assert pair.provenance["target"] == {"engine": "lean graph", "digest": "1"}
    assert pair.provenance["draft_2"]["engine"] == "lean graph"
    assert found["engine"] == "lean"

    picture = ModelPair("picture", guided(lean, (93,)), provenance={"target": {"digest": "2"}})
    engines.switch(picture, "graph")
    assert isinstance(picture.target, GuidedModel) and picture.target.engine == "lean graph"
    assert picture.provenance["target"] == {"engine": "lean graph", "digest": "2"}


def test_a_static_decoder_goes_back_to_the_lean_one(lean):
    assert engines.run_by(StaticDecoder(lean), "eager") is lean


@pytest.mark.parametrize("engine", ["graph", "compile"])
def test_other_engines_than_the_lean_one_are_refused_by_name(engine):
    model = TableModel(markov_table(2, 8, seed=1), 8)
    with pytest.raises(ModelError, match=f"execution={engine} cannot run"):
        engines.switch(ModelPair("table", model), engine)
    for name in ("auto", "eager"):
        pair = ModelPair("table", model)
        engines.switch(pair, name)
        assert pair.target is model


def test_graphs_need_a_gpu_and_compiling_a_compiler(lean, monkeypatch):
    with pytest.raises(ModelError, match="needs a CUDA device") as caught:
        engines.run_by(lean, "graph")
    assert "execution=auto" in caught.value.fix
    engines.check_engine("graph", CUDA, "any")
    monkeypatch.setattr(engines, "missing_compiler", lambda device: "none was found")
    with pytest.raises(ModelError, match="cannot compile here"):
        engines.check_engine("compile", CPU, "any")


def run_config(**changes):
    node = {"name": "m", "title": "M", "target": "nowhere/at-all", "loader": {"_target_": "x.y"}}
    method = {"name": "ar", "title": "Plain", "decoder": {"_target_": "x.y"}, "exactness": "exact"}
    model = {**node, "device": "cpu", **changes.pop("model", {})}
    return {"method": method, "model": model, "task": catalog.load("task", "tiny"), **changes}


def test_an_engine_is_refused_before_anything_is_looked_for(monkeypatch):
    monkeypatch.setattr(setup, "locate", lambda name: pytest.fail("a loader was called"))
    config = RunConfig.from_dict(run_config(execution="graph"))
    with pytest.raises(ModelError, match="needs a CUDA device"):
        setup.load_models(config, frozenset())
    config = RunConfig.from_dict(run_config(execution="compile", model={"engine": "transformers"}))
    with pytest.raises(ModelError, match="modules"):
        setup.load_models(config, frozenset())


def test_the_key_is_checked_and_is_no_part_of_a_jobs_identity():
    with pytest.raises(ConfigError, match="execution"):
        RunConfig.from_dict(run_config(execution="graphs"))
    configs = [RunConfig.from_dict(run_config(execution=name)) for name in ("auto", "eager")]
    assert configs[0].execution == "auto" and configs[1].to_dict()["execution"] == "eager"
    assert configs[0].identity() == configs[1].identity()
