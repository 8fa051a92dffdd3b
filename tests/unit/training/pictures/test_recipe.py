"""The trainers of pictures learn, repeat with their seed, and write what they trained."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.distributed as dist
from transformers import AutoTokenizer, ChameleonForConditionalGeneration

from specbench.models.vqgan import Vqgan
from specbench.models.vqgan_files import load_vqgan
from specbench.training.loop import Optimizers
from specbench.training.pictures import evaluate, recipe
from specbench.training.pictures import model as train_model
from specbench.training.pictures import tokenizer as words
from specbench.training.pictures import vq as train_vq
from specbench.training.pictures.data import CLASS_SHARE, picture_stream, training_scene
from specbench.training.pictures.evaluate import DRAFT_FOLDER, TARGET_FOLDER
from specbench.zoo.pictures.render import render_batch
from specbench.zoo.pictures.scene import TASKS, Scene, combinations, left_out, vocabulary


@pytest.fixture(scope="module")
def picture_tokenizer():
    return words.build_tokenizer()


@pytest.fixture(scope="module")
def vq() -> Vqgan:
    torch.manual_seed(0)
    model = Vqgan(train_vq.CONFIG).eval()
    pictures = train_vq.to_tensor(next(picture_stream(3, 0, 1, 8)))
    with torch.no_grad():
        points = model.latents(pictures).permute(0, 2, 3, 1).flatten(0, 2)
        model.codebook.copy_(points[torch.randperm(len(points))[: words.CODES]])
    return model


@pytest.fixture
def alone(tmp_path_factory):
    meeting = tmp_path_factory.mktemp("meeting") / "processes"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def build(tokenizer, seed: int = 0, layers: int = 1) -> ChameleonForConditionalGeneration:
    torch.manual_seed(seed)
    return train_model.build_model(layers, tokenizer)


def stream(tokenizer, vq, seed: int = 5):
    return train_model.batches(tokenizer, vq, picture_stream(seed, 0, 1, 4), "captions")


# The words and the order of a sequence


def test_vocabulary_order(picture_tokenizer) -> None:
    assert len(words.names()) == len(set(words.names())) == len(picture_tokenizer)
    ids = picture_tokenizer.convert_tokens_to_ids
    assert ids(["<pad>", "<begin>", "<end>", "<separator>", "<code_0>"]) == [0, 1, 2, 3, 4]
    assert ids(["<code_511>", "<image>", "</image>", "<row>"]) == [515, 516, 517, 518]
    assert picture_tokenizer.bos_token_id == words.BEGIN
    assert picture_tokenizer.eos_token_id == words.END
    assert picture_tokenizer.pad_token_id == words.PAD


def test_every_word_of_a_caption_is_known(picture_tokenizer) -> None:
    rows = words.prompts(picture_tokenizer, [" ".join(vocabulary())])
    assert len(rows[0]) == len(vocabulary()) + 5
    assert picture_tokenizer.unk_token_id not in rows[0]
    (row,) = words.prompts(picture_tokenizer, ["A photo of a Zebra"])
    assert row[-4:] == [words.SEPARATOR, *words.UNCONDITIONAL]
    assert row.count(picture_tokenizer.unk_token_id) == 1


def test_codes_survive_the_grid() -> None:
    codes = torch.randint(0, words.CODES, (3, words.SIDE, words.SIDE))
    tokens = words.grid_tokens(codes)
    assert tokens.shape == (3, words.GRID_TOKENS)
    assert torch.equal(words.grid_codes(tokens), codes)
    forced = tokens[0].tolist()
    assert forced[12::13] == [words.ROW_END] * 12 and forced[-2:] == [words.IMAGE_END, words.END]


def test_tokenizer_is_saved_whole(picture_tokenizer, tmp_path) -> None:
    words.save_tokenizer(picture_tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    captions = ["a photo of two red circles", "class 29"]
    assert words.prompts(loaded, captions) == words.prompts(picture_tokenizer, captions)


# The stream


def test_processes_share_one_stream() -> None:
    whole = list(itertools.islice(picture_stream(2, 0, 1, 4), 4))
    shared = [next(picture_stream(2, first, 2, 4)) for first in (0, 1)]
    for one, other in zip(whole, shared, strict=False):
        assert one.scenes == other.scenes and np.array_equal(one.pixels, other.pixels)
    assert not np.array_equal(whole[0].pixels, next(picture_stream(3, 0, 1, 4)).pixels)


def test_stream_holds_classes_and_no_held_out_words() -> None:
    scenes = [training_scene(f"test/{index}") for index in range(3000)]
    classes = sum(scene.caption.startswith("class ") for scene in scenes) / len(scenes)
    assert abs(classes - CLASS_SHARE) < 0.03
    for task in TASKS:
        phrases = [combination.phrase for combination in left_out(task)]
        seen = [scene.caption for scene in scenes if scene.task == task]
        assert seen
        for phrase in phrases:
            ending = [f" {phrase}", f" {phrase} on"]
            assert not any(c.endswith(ending[0]) or ending[1] in c for c in seen)


# The tokenizer of pictures


def test_tensor_of_pictures() -> None:
    pictures = next(picture_stream(1, 0, 1, 2))
    pixels = train_vq.to_tensor(pictures)
    assert pixels.shape == (2, 3, 48, 48) and pixels.is_contiguous()
    assert pixels.min() >= -1 and pixels.max() <= 1
    restored = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(restored, pictures.pixels)


def test_picture_loss_weighs_color_and_edges() -> None:
    wanted = torch.zeros(1, 3, 8, 8)
    assert train_vq.picture_loss(wanted, wanted).item() == 0.0
    grey, tinted = torch.full_like(wanted, 0.1), wanted.clone()
    tinted[:, 0], tinted[:, 1] = 0.1, -0.1
    assert train_vq.picture_loss(tinted, wanted) > train_vq.picture_loss(grey, wanted)
    striped = grey.clone()
    striped[..., ::2] *= -1
    assert train_vq.picture_loss(striped, wanted) > train_vq.picture_loss(grey, wanted)


def test_codebook_moves_to_its_points_and_restarts_dead_codes(alone) -> None:
    torch.manual_seed(0)
    model = Vqgan(train_vq.CONFIG)
    codebook = train_vq.Codebook(model)
    centres = torch.randn(4, 8) * 5
    points = centres.repeat(200, 1) + 0.01 * torch.randn(800, 8)
    codebook.begin(points)
    # All codes but the first lie far from every point, so that they die.
    model.codebook.data[1:] += 100
    codebook._sums[1:] += 100
    for _ in range(400):
        ids = model.nearest(points.T.reshape(1, 8, 40, 20)).flatten()
        codebook.follow(points, ids)
    nearest = torch.cdist(centres, model.codebook.data).min(1).values
    assert nearest.max() < 0.1
    assert torch.cdist(model.codebook.data, centres).min(1).values.median() < 0.1
    assert codebook.perplexity() > 50


def test_tokenizer_of_pictures_learns_and_repeats(alone, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(train_vq, "BATCH", 2)
    for name in ("a", "b"):
        train_vq.train_vq(tmp_path / name, seed=0, steps=10)
    first, second = (tmp_path / name / "model.safetensors" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert "vq step 10/10" in capsys.readouterr().out
    pixels = train_vq.to_tensor(next(picture_stream(9, 0, 1, 4)))
    torch.manual_seed(0)
    untrained, trained = Vqgan(train_vq.CONFIG).eval(), load_vqgan(tmp_path / "a")
    before = train_vq.picture_loss(untrained.decode(untrained.encode(pixels)), pixels)
    after = train_vq.picture_loss(trained.decode(trained.encode(pixels)), pixels)
    assert after < before


# The models


def test_norms_are_not_matrices(picture_tokenizer) -> None:
    model = build(picture_tokenizer)
    optimizers = Optimizers.of(model, 0, 1)
    matrices = {id(p) for p in optimizers.matrices.param_groups[0]["params"]}
    named = {name for name, parameter in model.named_parameters() if id(parameter) in matrices}
    assert len(named) == 7 and all(name.endswith("_proj.weight") for name in named)


def test_batch_learns_every_code_once(picture_tokenizer, vq) -> None:
    batch = next(stream(picture_tokenizer, vq))
    rows, length = batch.tokens.shape
    following = batch.tokens[:, 1:].flatten()[batch.learned].view(rows, -1)
    assert following.shape == (4, words.GRID_TOKENS - 3)
    pictures = next(picture_stream(5, 0, 1, 4))
    expected = words.grid_tokens(vq.encode(train_vq.to_tensor(pictures)))[:, :-3]
    assert torch.equal(following, expected)
    weights = batch.weights.view(rows, -1)
    assert (weights[following == words.ROW_END] < 0.1).all()
    assert (weights[following != words.ROW_END] == 1).all()
    # Behind the last code stands nothing but padding.
    last = batch.learned.view(rows, -1)[:, -1] % (length - 1) + 1
    for row, place in zip(batch.tokens, last, strict=True):
        assert (row[place + 1 :] == words.PAD).all()


def test_captions_are_left_out_for_guidance(picture_tokenizer, vq, monkeypatch) -> None:
    share = 0
    source = stream(picture_tokenizer, vq)
    for _ in range(25):
        share += (next(source).tokens[:, 0] == words.IMAGE_BEGIN).sum().item()
    assert 2 <= share <= 22
    monkeypatch.setattr(train_model, "CAPTION_DROPOUT", 1.0)
    batch = next(stream(picture_tokenizer, vq))
    assert batch.tokens[:, :3].tolist() == [list(words.UNCONDITIONAL)] * 4


def test_distillation_is_least_at_the_teacher(picture_tokenizer, vq) -> None:
    batch = next(stream(picture_tokenizer, vq))
    teacher, other = (build(picture_tokenizer, seed) for seed in (1, 2))
    with torch.no_grad():
        own = train_model._loss(teacher, batch, teacher).item()
        assert own < train_model._loss(other, batch, teacher).item()


def fit(tokenizer, vq, save=lambda: None) -> ChameleonForConditionalGeneration:
    model = build(tokenizer)
    train_model.fit(model, None, stream(tokenizer, vq), 4, 100, save)
    return model


def test_fit_learns_repeats_and_saves_at_the_end(picture_tokenizer, vq, alone) -> None:
    batch = next(stream(picture_tokenizer, vq))
    saved: list[int] = []
    first = fit(picture_tokenizer, vq, lambda: saved.append(1))
    second = fit(picture_tokenizer, vq)
    with torch.no_grad():
        before = train_model._loss(build(picture_tokenizer), batch, None).item()
        assert train_model._loss(first, batch, None).item() < before
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert saved == [1]


def test_checkpoint_is_one_of_transformers(picture_tokenizer, tmp_path) -> None:
    model = build(picture_tokenizer, layers=2).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.05 * torch.randn_like(parameter)).half().float()
    train_model.save_model(model, picture_tokenizer, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    own = train_model.load_model(tmp_path)
    plain = ChameleonForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.randint(0, len(picture_tokenizer), (2, 40))
    with torch.no_grad():
        # Without names of picture codes in its configuration, transformers' forward masks none.
        expected = plain.eval()(input_ids=tokens).logits
        for each in (own, model):
            hidden = each.model(input_ids=tokens, use_cache=False).last_hidden_state
            torch.testing.assert_close(each.lm_head(hidden), expected, atol=1e-4, rtol=1e-4)


# Drawing


def lively(tokenizer) -> ChameleonForConditionalGeneration:
    model = build(tokenizer, layers=2).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def test_drawn_tokens_obey_the_grid(picture_tokenizer) -> None:
    model = lively(picture_tokenizer)
    drawn = evaluate.draw(model, picture_tokenizer, ["a photo of a circle", "class 3"])
    codes = words.grid_codes(drawn.tokens)
    assert torch.equal(words.grid_tokens(codes), drawn.tokens)
    assert codes.min() >= 0 and codes.max() < words.CODES
    assert 0 < drawn.entropy <= np.log(evaluate.DEFAULT.top_k) + 1e-3
    captions = ["a photo of a circle", "class 3"]
    again = evaluate.draw(model, picture_tokenizer, captions, draft=lively(picture_tokenizer))
    assert torch.equal(again.tokens, drawn.tokens)
    assert again.acceptance is not None and 0 < again.acceptance < 1


def test_a_model_accepts_itself(picture_tokenizer) -> None:
    model = lively(picture_tokenizer)
    drawn = evaluate.draw(model, picture_tokenizer, ["class 3"], draft=model)
    assert drawn.acceptance == pytest.approx(1.0, abs=1e-4)


def test_the_sampling_law_is_the_guided_one(picture_tokenizer) -> None:
    """Cached, padded rows give the law that two plain forwards give."""
    model = lively(picture_tokenizer)
    captions = ["a photo of two red circles on a dark background", "class 3"]
    sampling = evaluate.Sampling(temperature=0.8, top_k=20, cfg_scale=3.0)
    prompts = words.prompts(picture_tokenizer, captions)
    rows = evaluate._Rows(model, prompts, sampling)
    with torch.no_grad():
        rows.law(rows.tokens)
        more = torch.randint(4, 500, (2, 5))
        found = rows.law(more.repeat(2, 1))
        for index, prompt in enumerate(prompts):
            codes = slice(words.FIRST_CODE, words.FIRST_CODE + words.CODES)
            logits = []
            for row in (prompt, list(words.UNCONDITIONAL)):
                tokens = torch.tensor([row + more[index].tolist()])
                hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[0, -1]
                logits.append(model.lm_head(hidden)[codes])
            guided = (logits[1] + 3.0 * (logits[0] - logits[1])) / 0.8
            top = guided.topk(20)
            expected = torch.zeros(words.CODES).scatter_(0, top.indices, top.values.softmax(-1))
            torch.testing.assert_close(found[index], expected, atol=1e-4, rtol=1e-3)


def test_scores_of_scenes_themselves() -> None:
    scenes: list[Scene] = evaluate.validation_scenes(24)
    assert [scene.task for scene in scenes[:6]] == list(TASKS)
    for scene in scenes:
        if held_out := left_out(scene.task):
            assert any(item.phrase in scene.caption for item in held_out)
        assert any(item.phrase in scene.caption for item in combinations(scene.task))
    scores = evaluate.rule_scores(scenes, render_batch(scenes, range(24)))
    assert set(scores) == {*TASKS, "all"} and scores["all"] > 0.95
    shifted = evaluate.rule_scores(scenes, render_batch([*scenes[1:], scenes[0]], range(24)))
    assert shifted["all"] < 0.5


@pytest.mark.slow
def test_one_command_writes_the_layout(tmp_path, monkeypatch) -> None:
    counts = ("--vq-steps", "2", "--target-steps", "1", "--draft-steps", "1")
    stages = ("--stages", "vq", "target", "draft")
    monkeypatch.setattr("sys.argv", ["train", "--out", str(tmp_path), *counts, *stages])
    recipe.main()
    model = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    target = {*model, "vq/config.json", "vq/model.safetensors"}
    for name, expected in ((TARGET_FOLDER, target), (DRAFT_FOLDER, model)):
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        assert {str(path.relative_to(tmp_path / name)) for path in files} == {
            *expected,
            "SHA256SUMS",
        }
