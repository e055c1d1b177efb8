"""The published methods around their numbers: prompts, their cache, released files, options."""

import functools
import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from torch.nn import functional as F

from models.baselines import base
from models.baselines.prompts import CLIP_PROMPTS, VAND_PROMPTS, WINCLIP_PROMPTS
from models.encoders.clip import clip_model
from models.methods import METHODS
from options.load import load
from tests.fixtures import random_batch
from utils.errors import UserError
from utils.store import Store

TINY = {"arch": "tiny-ViT", "pre_trained": "random"}
BASELINES = Path("options/baselines")

# ---------------------------------------------------------------- prompts


def sha256_of(texts):
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


@pytest.mark.parametrize(
    ("templates", "count", "digest", "some"),
    [
        (
            CLIP_PROMPTS["templates"].templates,
            80,
            "4f976686fb651bb5803d4689dcd849f75efe0ef19a3c801355bc9a6f03c8a5af",
            ("itap of my {}.", "a {} in a video game.", "a origami {}.", "the plushie {}."),
        ),
        (
            WINCLIP_PROMPTS["mala_lab"].templates,
            22,
            "b3299196d809ed640c38f94cf8cd76f2cf09acea49480becf32ee51399243a23",
            ("a photo of a {} for visual inspection.", "a jpeg corrupted photo of the {}."),
        ),
        (
            VAND_PROMPTS.templates,
            35,
            "b976c262921bee3ef6023d1fddd4bed3f34887e0612790be043f325f34baa3ee",
            ("this is one {} in the scene.", "a photo of my {}.", "there is a {} in the scene."),
        ),
    ],
    ids=["clip", "winclip", "vand"],
)
def test_templates_are_the_published_ones_word_for_word(templates, count, digest, some):
    assert len(templates) == len(set(templates)) == count
    assert all(template.count("{}") == 1 for template in templates)
    assert set(some) < set(templates)
    assert sha256_of(templates) == digest  # one template a line, in the published order


@pytest.mark.parametrize(
    ("prompts", "counts", "some"),
    [
        (CLIP_PROMPTS["two"], (1, 1), ()),
        (CLIP_PROMPTS["templates"], (80, 80), ("a photo of many anomalous pipe fryum.",)),
        (
            WINCLIP_PROMPTS["mala_lab"],
            (154, 88),
            (
                "a cropped photo of a pipe fryum without flaw.",
                "a photo of the pipe fryum with defect for anomaly detection.",
                "a bright photo of a damaged pipe fryum.",
            ),
        ),
        (WINCLIP_PROMPTS["anomalib"], (147, 84), ("a photo of a unblemished pipe_fryum.",)),
        (
            VAND_PROMPTS,
            (245, 175),
            ("this is a broken pipe_fryum in the scene.", "a dark photo of a pipe_fryum."),
        ),
    ],
)
def test_sentences_are_counted(prompts, counts, some):
    normal, anomalous = prompts.sentences("pipe_fryum")
    assert (len(normal), len(anomalous)) == counts
    assert set(some) <= {*normal, *anomalous}
    spoken = "pipe_fryum" if prompts.underscore else "pipe fryum"
    assert all(spoken in sentence for sentence in normal + anomalous)
    assert not [sentence for sentence in normal + anomalous if "{" in sentence]
    assert not set(normal) & set(anomalous)


def test_clip_has_two_sentences():
    said = CLIP_PROMPTS["two"].sentences("candle")
    assert said == (["a photo of a normal candle."], ["a photo of an anomalous candle."])


def test_states_are_the_published_ones():
    normal = ["{}", "flawless {}", "perfect {}", "unblemished {}"]
    normal += ["{} without flaw", "{} without defect", "{} without damage"]
    ends = ["{} with flaw", "{} with defect", "{} with damage"]
    for prompts in (*WINCLIP_PROMPTS.values(), VAND_PROMPTS):
        assert list(prompts.normal) == normal
    assert list(VAND_PROMPTS.anomalous) == ["damaged {}", "broken {}", *ends]
    for prompts in WINCLIP_PROMPTS.values():
        assert list(prompts.anomalous) == ["damaged {}", *ends]


def test_the_list_of_21_lacks_two_templates_and_has_one_twice():
    long, short = (Counter(WINCLIP_PROMPTS[n].templates) for n in ("mala_lab", "anomalib"))
    assert sum(short.values()) == 21
    assert len(short) == 20
    dropped = ["a cropped photo of a {}.", "a jpeg corrupted photo of a {}."]
    assert long - short == Counter(dropped)
    assert short - long == Counter(["a jpeg corrupted photo of the {}."])


def test_open_clip_would_not_cut_a_sentence():
    tokenize = open_clip.get_tokenizer("tiny-ViT")
    every = [*CLIP_PROMPTS.values(), *WINCLIP_PROMPTS.values(), VAND_PROMPTS]
    said = [s for prompts in every for part in prompts.sentences("macaroni1") for s in part]
    longest = max(said, key=len)
    assert tokenize([longest])[0, -1] == 0


# ---------------------------------------------------------------- cache of texts


def build(name="winclip", seed=0, folder=None, **options):
    torch.manual_seed(seed)
    model = METHODS[name]((64, 64), True, **{**TINY, **options}).eval()
    if folder is not None:
        model.store = Store(folder)
    return model


def short(model):
    """The model with two templates: what is cached does not depend on how many there are."""
    model.prompts = replace(model.prompts, templates=model.prompts.templates[:2])
    return model


@pytest.fixture
def encoded(monkeypatch):
    """The sentences that were encoded."""
    said = []
    original = base.embed_sentences

    def listens(text, tokenize, sentences):
        said.extend(sentences)
        return original(text, tokenize, sentences)

    monkeypatch.setattr(base, "embed_sentences", listens)
    return said


def test_texts_are_computed_once_per_object_and_weights(tmp_path, encoded):
    first, second = (short(build(folder=tmp_path / "texts")) for _ in range(2))
    found = first.texts_of(["candle", "pcb1", "candle"])
    assert found.shape == (3, 2, first.feature_dim)
    assert torch.equal(found[0], found[2])
    assert len(encoded) == len(set(encoded)) == 2 * 2 * (7 + 4)  # objects, templates, states
    first.texts_of(["pcb1"])
    assert torch.equal(second.texts_of(["candle", "pcb1", "candle"]), found)
    assert len(encoded) == 44  # the second model asked the disk
    assert len(list((tmp_path / "texts").glob("*.prompts"))) == 2


@pytest.mark.parametrize(
    ("seed", "exact_gelu", "prompts"),
    [
        (1, False, {}),
        (0, True, {}),
        (0, False, {"normalize_each": False}),
        (0, False, {"templates": ("a bad photo of a {}.",)}),
        (0, False, {"underscore": True}),
    ],
    ids=["weights", "activation", "norm", "templates", "underscore"],
)
def test_other_texts_are_another_file(tmp_path, monkeypatch, seed, exact_gelu, prompts):
    texts = short(build(folder=tmp_path)).texts_of(["pipe_fryum"])
    monkeypatch.setattr(METHODS["winclip"], "exact_gelu", exact_gelu)
    model = short(build(seed=seed, folder=tmp_path))
    model.prompts = replace(model.prompts, **prompts)
    assert not torch.equal(model.texts_of(["pipe_fryum"]), texts)
    assert len(list(tmp_path.glob("*.prompts"))) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "flipped"])
def test_a_damaged_file_of_texts_is_made_again(tmp_path, encoded, damage):
    wanted = short(build(folder=tmp_path)).texts_of(["candle"])
    (file,) = tmp_path.glob("*.prompts")
    whole = file.read_bytes()
    flipped = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
    damaged = {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"oh no" * 99}
    file.write_bytes({**damaged, "flipped": flipped}[damage])
    encoded.clear()
    assert torch.equal(short(build(folder=tmp_path)).texts_of(["candle"]), wanted)
    assert len(encoded) == 22
    assert file.read_bytes() == whole


def test_nothing_is_kept_where_nothing_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short(build()).texts_of(["candle"])
    assert not list(tmp_path.iterdir())


def test_other_weights_encode_texts_again():
    model, other = (short(build(seed=s)) for s in (0, 1))
    before = model.texts_of(["candle"])
    model.load_state_dict(other.state_dict())
    assert torch.equal(model.texts_of(["candle"]), other.texts_of(["candle"]))
    assert not torch.equal(model.texts_of(["candle"]), before)


def test_texts_first_met_while_scoring_serve_in_training():
    model = short(build("vand", levels=(2, 4)))
    batch = random_batch(2, 64, 64)
    with torch.inference_mode():
        model.score(batch)
    sum(level.square().sum() for level in model.train()(batch).maps).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.layers.parameters())


# ---------------------------------------------------------------- released files


def vand_file(count=4, width=128, dim=128):
    random = torch.Generator().manual_seed(3)
    state = {}
    for i in range(count):
        state[f"fc.{i}.weight"] = torch.randn(dim, width, generator=random)
        state[f"fc.{i}.bias"] = torch.randn(dim, generator=random)
    return {"trainable_linearlayer": state}


def anomalyclip_file(depth=2, context=12, width=64):
    """As the official training writes it, with all that we do not need."""
    random = torch.Generator().manual_seed(4)
    state = {
        f"ctx_{s}": torch.randn(1, 1, context, width, generator=random) for s in ("pos", "neg")
    }
    for i in range(depth - 1):
        state[f"compound_prompts_text.{i}"] = torch.randn(4, width, generator=random)
        state[f"compound_prompt_projections.{i}.weight"] = torch.randn(896, width)
        state[f"compound_prompt_projections.{i}.bias"] = torch.randn(896)
    for side in ("pos", "neg"):
        state[f"token_prefix_{side}"] = torch.randn(1, 1, 1, width)
        state[f"token_suffix_{side}"] = torch.randn(1, 1, 77 - 1 - context, width)
    return {"prompt_learner": state}


VAND = {"name": "vand", "levels": (1, 2, 3, 4)}
ANOMALYCLIP = {"name": "anomalyclip", "levels": (4,), "depth": 2, "dual_blocks": 3}


def test_the_official_layers_of_vand_load(tmp_path):
    content = vand_file()
    torch.save(content, tmp_path / "mvtec_pretrained.pth")
    model = build(**VAND, released=tmp_path / "mvtec_pretrained.pth")
    for i, layer in enumerate(model.layers):
        official = content["trainable_linearlayer"]
        assert torch.equal(layer.weight, official[f"fc.{i}.weight"])
        assert torch.equal(layer.bias, official[f"fc.{i}.bias"])


def test_the_official_prompts_of_anomalyclip_load(tmp_path):
    content = anomalyclip_file()
    torch.save(content, tmp_path / "epoch_15.pth")
    prompts = build(**ANOMALYCLIP, released=tmp_path / "epoch_15.pth").prompts_of_states
    official = content["prompt_learner"]
    assert torch.equal(prompts.normal, official["ctx_pos"][0, 0])
    assert torch.equal(prompts.anomalous, official["ctx_neg"][0, 0])
    assert torch.equal(prompts.deep[0], official["compound_prompts_text.0"])


def swapped(content):
    state = content["trainable_linearlayer"]
    state["fc.0.weight"] = state["fc.0.weight"].T.contiguous()
    return content


@pytest.mark.parametrize(
    ("options", "content", "message"),
    [
        (VAND, vand_file(3), "released: .*a.pth does not fit: Missing key.*3.weight"),
        (VAND, vand_file(5), "does not fit: Unexpected key.*4.weight"),
        (VAND, vand_file(width=64), "does not fit: size mismatch for 0.weight"),
        (VAND, swapped(vand_file(width=96, dim=64)), "does not fit: size mismatch for 0.weight"),
        (VAND, anomalyclip_file(), "expected a state dict"),
        (ANOMALYCLIP, anomalyclip_file(depth=3), "does not fit: Unexpected key.*deep.1"),
        (ANOMALYCLIP, anomalyclip_file(context=10), "does not fit: size mismatch for normal"),
        (ANOMALYCLIP, vand_file(), "expected a state dict"),
    ],
)
def test_a_released_file_that_does_not_fit(tmp_path, options, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises((ValueError, UserError), match=message) as caught:
        build(**options, released=tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


def test_a_transposed_layer_is_not_taken_for_its_numbers(tmp_path):
    """As many numbers are not the same numbers."""
    content = anomalyclip_file()
    state = content["prompt_learner"]
    state["ctx_pos"] = state["ctx_pos"].transpose(2, 3).contiguous()
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="does not fit: size mismatch for normal"):
        build(**ANOMALYCLIP, released=tmp_path / "a.pth")


@pytest.mark.parametrize("content", [None, b"not weights"])
def test_a_released_file_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"a.pth: cannot be read as weights") as caught:
        build(**VAND, released=tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


def test_with_released_weights_nothing_is_left_to_train():
    for name in ("vand", "anomalyclip"):
        assert METHODS[name].needs_training({})
        assert METHODS[name].needs_training({"released": None})
        assert not METHODS[name].needs_training({"released": Path("a.pth")})
    for name in ("clip", "winclip"):
        assert not METHODS[name].needs_training({})


# ---------------------------------------------------------------- options and sizes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vand", "levels": (4, 2)}, "levels must be rising and within 1..4"),
        ({"name": "vand", "levels": (5,)}, "levels must be rising and within 1..4"),
        ({"name": "vand", "levels": ()}, "levels must be rising and within 1..4"),
        ({**ANOMALYCLIP, "levels": (1, 4)}, "dual_blocks must be within 1..4 and reach level 1"),
        ({**ANOMALYCLIP, "dual_blocks": 5}, "dual_blocks must be within 1..4"),
        ({**ANOMALYCLIP, "depth": 3}, r"depth within 1\.\.2"),
        ({**ANOMALYCLIP, "context": 0}, r"context must be in \[1, 1000000\], got 0"),
        ({**ANOMALYCLIP, "context": 72}, r"context must be within 1\.\.71, .* got 72 and"),
        (
            {**ANOMALYCLIP, "context": 4, "deep_context": 12},
            r"deep_context must be within 1\.\.6 if context is 4: .* got 12",
        ),
        ({"temperature": 0.0}, "temperature must be more than 0"),
        ({"shots": -1}, r"shots must be in \[0, 1000000\], got -1"),
        ({"arch": "tiny-RN"}, "the image tower of tiny-RN is not CLIP's own ViT"),
        ({"name": "clip", "ln_post": False, "arch": "tiny-RN"}, "is not CLIP's own ViT"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_winclip_takes_a_row_of_squares():
    with pytest.raises(ValueError, match=r"image.size must be \[side, n x side\]"):
        METHODS["winclip"]((64, 96), True, **TINY)


def test_an_image_has_to_hold_the_windows_of_winclip():
    with pytest.raises(ValueError, match="has 2 x 2 patches, and the largest window has 3 x 3"):
        METHODS["winclip"]((32, 64), True, **TINY)
    METHODS["winclip"]((48, 48), True, **TINY)


def test_clip_works_with_any_tower():
    model, batch = build("clip", arch="tiny-RN"), random_batch(2, 64, 64)
    with torch.no_grad():
        image = F.normalize(model.clip.visual(model.normalize(batch.image)), dim=-1)
        cosines = image @ model.texts_of(["fryum"])[0].T
        torch.testing.assert_close(model.score(batch), (cosines / 0.07).softmax(-1)[:, 1])


# Of mlfoundations/open_clip, docs/model_profile.csv, in millions: all, image tower, text tower.
PUBLISHED = {
    "ViT-B-16-plus-240": (208.38, 117.21, 91.16),
    "ViT-L-14-336": (427.94, 304.29, 123.65),
    "ViT-L-14-336-quickgelu": (427.94, 304.29, 123.65),
}


@pytest.fixture
def weightless(monkeypatch):
    """Networks of full size without any number in them."""
    made = functools.partial(open_clip.create_model, device="meta")
    monkeypatch.setattr(open_clip, "create_model", made)
    with torch.device("meta"):
        yield


def millions(module):
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 2)


@pytest.mark.usefixtures("weightless")
@pytest.mark.parametrize("arch", PUBLISHED)
def test_parameters_are_as_many_as_published(arch):
    clip = clip_model(arch, None, pre_trained="random")
    assert (millions(clip), millions(clip.visual), millions(clip.text)) == PUBLISHED[arch]


@pytest.mark.usefixtures("weightless")
@pytest.mark.parametrize(
    ("file", "trained"),
    [
        ("clip", 0),
        ("winclip", 0),
        ("vand", 4 * (1024 * 768 + 768)),
        ("anomalyclip", 2 * 12 * 768 + 8 * 4 * 768),
    ],
)
def test_what_is_trained_at_full_size(file, trained):
    stage = load(BASELINES / f"{file}.yaml").baseline
    model = replace(stage.model, options={**stage.model.options, "pre_trained": "random"})
    network = model.build(METHODS, stage.image.height_width, True)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trained
    grid = {"winclip": 15}.get(file, 37)
    assert network.clip.visual.positional_embedding.shape[0] == 1 + grid**2
    blocks = {"winclip": 12}.get(file, 24)
    assert len(network.clip.visual.transformer.resblocks) == blocks
