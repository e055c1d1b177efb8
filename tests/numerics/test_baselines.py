"""The published methods against plain loops, with random weights of a small tower."""

import json
from dataclasses import replace

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from models.baselines.anomalyclip import AnomalyClip
from models.baselines.clip import Clip
from models.baselines.vand import Vand
from models.baselines.winclip import WinClip
from models.encoders.clip import clip_model
from models.methods import METHODS
from tests.numerics.slow_clip import (
    SlowClip,
    SlowWinClip,
    gelu,
    probability,
    quick_gelu,
    slow_anomalyclip,
    slow_vand,
    unit,
    weights_of,
)
from utils.batch import Batch
from utils.registry import options_of

SIDE = 64
TINY = {"arch": "tiny-ViT", "pre_trained": "random"}
TOLERANCE = {"rtol": 0, "atol": 1e-4}
OBJECTS = ("pipe_fryum", "candle")

NORMAL_STATES = (
    *("{}", "flawless {}", "perfect {}", "unblemished {}"),
    *("{} without flaw", "{} without defect", "{} without damage"),
)
WINCLIP_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
VAND_STATES = ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage")


@pytest.fixture(scope="module", autouse=True)
def deep_arch(tmp_path_factory):
    """A tower with four text blocks and exact GELU, so that depths can be told apart."""
    config = {
        "embed_dim": 48,
        "vision_cfg": {
            "image_size": 64,
            "layers": 4,
            "width": 64,
            "head_width": 16,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 4,
        },
    }
    file = tmp_path_factory.mktemp("arch") / "test-deep-ViT.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(file)


def build(name, size=(SIDE, SIDE), **options):
    """The method with weights strong enough to tell images and sentences apart."""
    torch.manual_seed(0)
    model = METHODS[name](size, True, **{**TINY, **options})
    for key, parameter in model.named_parameters():
        with torch.no_grad():
            if ".ln_" in key and key.endswith("weight"):
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            elif parameter.ndim < 2:
                parameter.normal_(std=0.3)
            elif "embedding" in key or key.startswith("prompts_of_states"):
                parameter.normal_(std=0.7)
            else:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model.eval()


def batch_of(images, objects=OBJECTS):
    return Batch(images, torch.zeros(len(images)).long(), objects, [str(i) for i in objects])


def pictures(count=2, width=SIDE, seed=1):
    """Smooth pictures with a patch that stands out, not noise: their windows differ."""
    random = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 3, 8, width // 8, generator=random)
    return (F.interpolate(low, (SIDE, width), mode="bilinear") * 255).round().byte()


def shorten(model):
    """All states, but only three templates: the whole ensembles have a test of their own."""
    model.prompts = replace(model.prompts, templates=model.prompts.templates[:3])
    return model


def both(model, batch):
    with torch.no_grad():
        return model.score(batch), model.score_and_map(batch)


# ---------------------------------------------------------------- CLIP


@pytest.mark.parametrize("ln_post", [True, False])
def test_clip_against_a_loop(ln_post):
    model = build("clip", ln_post=ln_post)
    slow, batch = SlowClip(model.clip, quick_gelu), batch_of(pictures())
    with torch.no_grad():
        found = model.score(batch)
    for image, name, score in zip(batch.image, ("pipe fryum", "candle"), found, strict=True):
        said = [f"a photo of {s} {name}." for s in ("a normal", "an anomalous")]
        normal, anomalous = (unit(slow.text(model.tokenize([s])[0])) for s in said)
        wanted = probability(slow.image(image, ln_post=ln_post), normal, anomalous, 0.07)
        assert float(score) == pytest.approx(wanted, abs=1e-4)
    assert (found[0] - found[1]).abs() > 0.01


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("name", "options", "states", "spoken"),
    [
        ("clip", {"prompts": "templates"}, (("normal {}",), ("anomalous {}",)), "pipe fryum"),
        ("winclip", {}, (NORMAL_STATES, WINCLIP_STATES), "pipe fryum"),
        (
            "winclip",
            {"prompts": "anomalib"},
            (NORMAL_STATES[3:5], WINCLIP_STATES[:2]),
            "pipe_fryum",
        ),
        ("vand", {"levels": (4,)}, (NORMAL_STATES[:2], VAND_STATES[:2]), "pipe_fryum"),
    ],
)
def test_the_texts_of_an_ensemble_against_a_loop(name, options, states, spoken):
    model = build(name, **options)
    slow = SlowClip(model.clip, gelu if name == "vand" else quick_gelu)
    per_prompt_norm = options.get("prompts") != "anomalib"
    if len(states[0]) < len(model.prompts.normal):
        model.prompts = replace(model.prompts, normal=states[0], anomalous=states[1])
    templates = model.prompts.templates  # their words: tests/unit/test_baselines.py
    wanted = [
        slow.ensemble(model.tokenize, part, templates, spoken, per_prompt_norm=per_prompt_norm)
        for part in states
    ]
    found = model.texts_of(["pipe_fryum"])[0]
    torch.testing.assert_close(found.double(), torch.stack(wanted), rtol=0, atol=1e-5)


# ---------------------------------------------------------------- WinCLIP


def winclip_texts(model, slow, name, **options):
    return [
        slow.ensemble(model.tokenize, states, model.prompts.templates, name, **options)
        for states in (NORMAL_STATES, WINCLIP_STATES)
    ]


@pytest.mark.parametrize(("prompts", "temperature"), [("mala_lab", 0.01), ("anomalib", 0.07)])
def test_winclip_against_a_loop(prompts, temperature):
    names = {"mala_lab": ("pipe fryum", "candle"), "anomalib": OBJECTS}[prompts]
    model = shorten(build("winclip", prompts=prompts, temperature=temperature))
    slow, batch = SlowClip(model.clip, quick_gelu), batch_of(pictures())
    score, (again, maps) = both(model, batch)
    assert maps.shape == (2, SIDE, SIDE)
    for i, name in enumerate(names):
        texts = winclip_texts(model, slow, name, per_prompt_norm=prompts == "mala_lab")
        wanted, grid = SlowWinClip(slow, 4, temperature)(batch.image[i], *texts)
        assert float(score[i]) == pytest.approx(wanted, abs=1e-4)
        torch.testing.assert_close(maps[i].double(), grid, **TOLERANCE)
        assert grid.max() - grid.min() > 1e-4 / temperature
    torch.testing.assert_close(again, score)


@pytest.mark.parametrize("norm_references", [False, True])
def test_winclip_with_references_against_a_loop(norm_references):
    options = {"shots": 2, "temperature": 0.01, "norm_references": norm_references}
    model = shorten(build("winclip", **options))
    slow, batch = SlowClip(model.clip, quick_gelu), batch_of(pictures())
    shown = pictures(4, seed=2)
    for image, name in zip(shown, ("candle", "pipe_fryum") * 2, strict=True):
        model.remember(batch_of(image.unsqueeze(0), [name]))
    score, (again, maps) = both(model, batch)
    for i, name in enumerate(("pipe fryum", "candle")):
        references = [shown[1 - i], shown[3 - i]]
        texts = winclip_texts(model, slow, name)
        formula = SlowWinClip(slow, 4, 0.01, norm_references=norm_references)
        wanted, grid = formula(batch.image[i], *texts, references)
        assert float(score[i]) == pytest.approx(wanted, abs=1e-4)
        torch.testing.assert_close(maps[i].double(), grid, **TOLERANCE)
    torch.testing.assert_close(again, score)


def test_winclip_takes_the_mean_of_the_tiles_and_leaves_black_ones_out():
    options = {"temperature": 0.01}
    model, one = (shorten(build("winclip", (SIDE, w), **options)) for w in (3 * SIDE, SIDE))
    image = pictures(2, 3 * SIDE)
    image[1, :, :, 2 * SIDE :] = 0  # this picture has two tiles
    batch = batch_of(image)
    score, (again, maps) = both(model, batch)
    tiles = [batch_of(part) for part in image.split(SIDE, dim=-1)]
    each = [both(one, tile) for tile in tiles]
    s = torch.stack([score for score, _ in each])
    torch.testing.assert_close(score[0], s[:, 0].mean())
    torch.testing.assert_close(score[1], s[:2, 1].mean())
    torch.testing.assert_close(again, score)
    assert maps.shape == (2, SIDE, 3 * SIDE)
    torch.testing.assert_close(maps, torch.cat([m for _, (_, m) in each], dim=-1))


def test_winclip_compares_a_tile_with_the_references_tile_in_the_same_place():
    model = shorten(build("winclip", (SIDE, 2 * SIDE), shots=1))
    image, shown = pictures(1, 2 * SIDE), pictures(1, 2 * SIDE, seed=3)
    model.remember(batch_of(shown, OBJECTS[:1]))
    found, _ = both(model, batch_of(image, OBJECTS[:1]))
    scores = []
    for part, reference in zip(image.split(SIDE, -1), shown.split(SIDE, -1), strict=True):
        one = shorten(build("winclip", shots=1))
        one.remember(batch_of(reference, OBJECTS[:1]))
        scores.append(both(one, batch_of(part, OBJECTS[:1]))[0])
    torch.testing.assert_close(found, (scores[0] + scores[1]) / 2)


@pytest.mark.parametrize("black", [False, True], ids=["itself", "itself_with_a_black_tile"])
def test_winclip_with_a_picture_that_is_its_own_reference(black):
    """Distances of nothing, or a rounding error below: no harmonic mean may blow up."""
    model, plain = (shorten(build("winclip", (SIDE, 2 * SIDE), shots=n)) for n in (1, 0))
    image = pictures(1, 2 * SIDE)
    if black:
        image[..., SIDE:] = 0
    batch = batch_of(image, OBJECTS[:1])
    model.remember(batch)
    score, (_, maps) = both(model, batch)
    zero_shot, (_, zero_maps) = both(plain, batch)
    torch.testing.assert_close(score, zero_shot / 2, atol=1e-5, rtol=0)
    torch.testing.assert_close(maps, zero_maps, atol=1e-5, rtol=0)


def test_an_image_score_of_winclip_never_pays_for_windows(monkeypatch):
    model, batch = shorten(build("winclip")), batch_of(pictures())
    monkeypatch.setattr("models.baselines.winclip.embed_windows", lambda *a: pytest.fail("windows"))
    with torch.no_grad():
        assert model.score(batch).shape == (2,)


def test_the_chunks_of_windows_change_nothing(monkeypatch):
    model, batch = shorten(build("winclip", temperature=0.01)), batch_of(pictures())
    _, (_, maps) = both(model, batch)
    monkeypatch.setattr("models.baselines.winclip._TOKENS", 25)
    _, (_, again) = both(model, batch)
    torch.testing.assert_close(maps, again)


# ---------------------------------------------------------------- VAND


@pytest.mark.parametrize("levels", [(1, 2, 3, 4), (2, 3), (4,)])
def test_vand_against_a_loop(levels):
    model = shorten(build("vand", levels=levels))
    slow, batch = SlowClip(model.clip, gelu), batch_of(pictures())
    score, (again, maps) = both(model, batch)
    weights = weights_of(model.layers)
    layers = [(weights[f"{i}.weight"], weights[f"{i}.bias"]) for i in range(len(levels))]
    for i, name in enumerate(OBJECTS):  # the raw name, with its underscore
        texts = [
            slow.ensemble(model.tokenize, states, model.prompts.templates, name)
            for states in (NORMAL_STATES, VAND_STATES)
        ]
        wanted, grid = slow_vand(slow, batch.image[i], *texts, layers, levels)
        assert float(score[i]) == pytest.approx(wanted, abs=1e-4)
        torch.testing.assert_close(maps[i].double(), grid, **TOLERANCE)
        assert grid.max() - grid.min() > 0.01
    torch.testing.assert_close(again, score)


def test_vand_computes_the_exact_gelu_although_the_architecture_has_the_quick_one(monkeypatch):
    exact = shorten(build("vand", levels=(4,)))
    monkeypatch.setattr(Vand, "exact_gelu", False)
    quick, batch = shorten(build("vand", levels=(4,))), batch_of(pictures())
    with torch.no_grad():
        assert (exact.score(batch) - quick.score(batch)).abs().max() > 1e-3
    for model, kind in ((exact, nn.GELU), (quick, open_clip.transformer.QuickGELU)):
        blocks = [*model.clip.visual.transformer.resblocks, *model.clip.text.transformer.resblocks]
        assert {type(block.mlp.gelu) for block in blocks} == {kind}


def test_the_layers_of_vand_do_not_change_its_scores():
    model, batch = shorten(build("vand", levels=(2, 4))), batch_of(pictures())
    before, (_, maps) = both(model, batch)
    for parameter in model.layers.parameters():
        nn.init.normal_(parameter)
    after, (_, others) = both(model, batch)
    assert torch.equal(before, after)
    assert not torch.allclose(maps, others, atol=1e-2)


# ---------------------------------------------------------------- AnomalyCLIP


@pytest.mark.parametrize(
    ("options", "act"),
    [
        ({"arch": "test-deep-ViT", "depth": 3, "dual_blocks": 3, "levels": (2, 4)}, gelu),
        (
            {"depth": 2, "dual_blocks": 4, "levels": (4,), "context": 5, "deep_context": 2},
            quick_gelu,
        ),
        ({"arch": "test-deep-ViT", "depth": 4, "dual_blocks": 1, "levels": (4,)}, gelu),
        ({"depth": 1, "dual_blocks": 2, "levels": (3, 4)}, quick_gelu),
    ],
)
def test_anomalyclip_against_a_loop(options, act):
    model = build("anomalyclip", **options)
    slow, batch = SlowClip(model.clip, act), batch_of(pictures())
    score, (again, maps) = both(model, batch)
    learned = weights_of(model.prompts_of_states)
    context = options.get("context", 12)
    deep = [learned[f"deep.{i}"] for i in range(options["depth"] - 1)]
    assert set(learned) == {"normal", "anomalous", *(f"deep.{i}" for i in range(len(deep)))}
    assert learned["normal"].shape[0] == context
    assert all(d.shape[0] == options.get("deep_context", 4) for d in deep)
    texts = []
    for name, words in (("normal", "object."), ("anomalous", "damaged object.")):
        ids = model.tokenize([" ".join(["X"] * context + [words])])[0]
        texts.append(unit(slow.text(ids, context=learned[name], deep=deep)))
    path = {name: options[name] for name in ("dual_blocks", "levels")}
    for i in range(2):
        wanted, grid = slow_anomalyclip(slow, batch.image[i], *texts, **path)
        assert float(score[i]) == pytest.approx(wanted, abs=1e-4)
        torch.testing.assert_close(maps[i].double(), grid, **TOLERANCE)
    torch.testing.assert_close(again, score)
    assert maps[0].max() - maps[0].min() > 1e-3
    assert (score[0] - score[1]).abs() > 1e-3


def test_the_second_path_of_anomalyclip_does_not_change_its_scores():
    a, b = (build("anomalyclip", depth=2, dual_blocks=n, levels=(4,)) for n in (1, 4))
    batch = batch_of(pictures())
    (score, (_, maps)), (other, (_, others)) = both(a, batch), both(b, batch)
    torch.testing.assert_close(score, other)
    assert not torch.allclose(maps, others, atol=1e-3)


# ---------------------------------------------------------------- all of them

VARIANTS = {
    "clip": ("clip", {}),
    "winclip": ("winclip", {}),
    "winclip_plus": ("winclip", {"shots": 1}),
    "vand": ("vand", {"levels": (2, 4)}),
    "anomalyclip": ("anomalyclip", {"depth": 2, "dual_blocks": 3, "levels": (4,)}),
}


@pytest.fixture(params=VARIANTS)
def model(request):
    name, options = VARIANTS[request.param]
    model = build(name, **options)
    if name != "anomalyclip":
        shorten(model)
    for each in OBJECTS if model.num_references else ():
        model.remember(batch_of(pictures(1, seed=5), [each]))
    return model


def test_scores_and_maps_do_not_depend_on_the_batch(model):
    images = pictures(3)
    names = ["candle", "pipe_fryum", "candle"]
    with torch.no_grad():
        together = model.score(batch_of(images, names))
        alone = [model.score(batch_of(images[i : i + 1], [names[i]])) for i in range(3)]
        torch.testing.assert_close(torch.cat(alone), together)
        assert together.min() > 0
        assert together.max() < 1
        if model.has_map:
            scores, maps = model.score_and_map(batch_of(images, names))
            one, own = model.score_and_map(batch_of(images[1:2], names[1:2]))
            torch.testing.assert_close(scores, together)
            torch.testing.assert_close(one, together[1:2])
            torch.testing.assert_close(own[0], maps[1], atol=1e-5, rtol=1e-4)
            assert maps.dtype == torch.float32


def test_methods_run_in_bf16(model):
    batch = batch_of(pictures())
    with torch.no_grad():
        exact = model.score(batch)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model.score(batch)
            if model.has_map:
                again, maps = model.score_and_map(batch)
                assert maps.dtype == torch.float32
                assert maps.isfinite().all()
                torch.testing.assert_close(again, rough, atol=0.05, rtol=0)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.15, rtol=0)


def ranks(scores):
    return scores.argsort().argsort().tolist()


def test_the_ranking_of_a_two_class_softmax_does_not_depend_on_the_temperature():
    batch, scores = batch_of(pictures(12), ["candle"] * 12), []
    model = shorten(build("winclip"))
    with torch.no_grad():
        image = F.normalize(model.embed_image(model.normalize(batch.image)), dim=-1)
        for temperature in (0.02, 0.07, 1.0, 30.0):
            model.temperature = temperature
            scores.append(model.score(batch))
        cosines = image @ model.texts_of(["candle"])[0].T
    margin = ranks(cosines[:, 1] - cosines[:, 0])
    assert [ranks(s) for s in scores] == [margin] * 4
    assert not torch.allclose(scores[0], scores[2])


# ---------------------------------------------------------------- positions


@pytest.mark.parametrize(
    ("name", "options", "mode"),
    [
        ("clip", {}, "bilinear"),
        ("winclip", {}, "bicubic"),
        ("vand", {"levels": (4,)}, "bicubic"),
        ("anomalyclip", {"levels": (4,), "depth": 2, "dual_blocks": 2}, "bilinear"),
    ],
)
def test_positions_get_to_another_grid(tmp_path, name, options, mode):
    torch.manual_seed(0)
    clip = clip_model("tiny-ViT", None, pre_trained="random")
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    model = METHODS[name](
        (96, 96),
        True,
        arch="tiny-ViT",
        pre_trained=str(tmp_path / "clip.safetensors"),
        **options,
    )
    old, new = clip.visual.positional_embedding, model.clip.visual.positional_embedding
    square = old[1:].T.reshape(1, -1, 8, 8)
    wanted = F.interpolate(square, (6, 6), mode=mode, antialias=mode == "bicubic")
    assert torch.equal(new[0], old[0])
    torch.testing.assert_close(new[1:], wanted[0].flatten(1).T)


def test_the_defaults_are_the_published_ones():
    """Of constructors; those of options/baselines/*.yaml: tests/unit/test_baselines.py."""
    kinds = (Clip, WinClip, Vand, AnomalyClip)
    defaults = {kind: {k: p.default for k, p in options_of(kind).items()} for kind in kinds}
    assert defaults[Clip]["prompts"] == "two"
    assert defaults[WinClip]["prompts"] == "mala_lab"
    assert defaults[WinClip]["shots"] == 0
    assert defaults[Vand]["levels"] == (6, 12, 18, 24)
    assert defaults[AnomalyClip]["levels"] == (24,)
    numbers = {n: defaults[AnomalyClip][n] for n in ("context", "depth", "deep_context")}
    assert numbers == {"context": 12, "depth": 9, "deep_context": 4}
    assert defaults[AnomalyClip]["dual_blocks"] == 19
