"""Fusion, losses and CLIP towers against implementations that share nothing with ours."""

import math

import open_clip
import pytest
import torch
import torchvision
from torch.nn import functional as F

from models.encoders import clip_text
from models.encoders.clip import _interpolate
from models.encoders.clip_image import ClipImageEncoder
from models.encoders.clip_text import ClipTextEncoder
from models.encoders.folding import unfold
from models.fusion import FUSIONS
from models.objectives.distillation import cosine_loss, distillation_loss, mse_loss
from tests.fixtures import CAPTIONS, TINY_CLIP, random_batch


def attend(x, memory, mask, weights, heads):
    """Multi-head attention, a loop over images, heads and asking tokens."""
    w_in, b_in = weights["in_proj_weight"], weights["in_proj_bias"]
    dim = w_in.shape[1]
    q, k, v = (
        source @ w_in[i * dim : (i + 1) * dim].T + b_in[i * dim : (i + 1) * dim]
        for i, source in enumerate((x, memory, memory))
    )
    out = torch.zeros_like(x)
    part = dim // heads
    for b in range(len(x)):
        for h in range(heads):
            cut = slice(h * part, (h + 1) * part)
            for i in range(x.shape[1]):
                scores = torch.stack([q[b, i, cut] @ key[cut] for key in k[b][mask[b]]])
                share = torch.exp(scores / math.sqrt(part))
                out[b, i, cut] = (share / share.sum()) @ v[b][mask[b]][:, cut]
    return out @ weights["out_proj.weight"].T + weights["out_proj.bias"]


def norm(x, weights, name):
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def below(weights, prefix):
    return {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}


def test_cross_attention_against_a_loop():
    torch.manual_seed(0)
    options = {"dim": 8, "out_dim": 6, "heads": 2, "layers": 2}
    module = FUSIONS["cross_attention"](5, 7, **options, direction="image_to_text").double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    image, text = torch.randn(2, 4, 5).double(), torch.randn(2, 3, 7).double()
    mask = torch.tensor([[True, True, True], [True, True, False]])
    weights = module.state_dict()
    x = norm(linear(image, weights, "from_image.0"), weights, "from_image.1")
    memory = norm(linear(text, weights, "from_text.0"), weights, "from_text.1")
    for i in range(2):
        w = below(weights, f"streams.image_to_text.{i}.")
        x = x + attend(
            norm(x, w, "query_norm"),
            norm(memory, w, "memory_norm"),
            mask,
            below(w, "attention."),
            2,
        )
        hidden = linear(norm(x, w, "mlp.0"), w, "mlp.1")
        x = x + linear(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2, w, "mlp.3")
    expected = linear(norm(x.mean(dim=1), weights, "norm"), weights, "project")
    torch.testing.assert_close(module(image, text, mask).vector, expected)


def test_distillation_of_two_classes_in_closed_form():
    """T=1, teacher 3:1, student 1:1 -> 0.75 ln(1.5) + 0.25 ln(0.5)."""
    teacher = torch.tensor([[math.log(3.0), 0.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert distillation_loss(torch.zeros(1, 2), teacher, 1.0).item() == pytest.approx(expected)


def test_distillation_at_a_temperature():
    """T=2, logits a and b: T^2 times the KL of Bernoullis sigmoid(d / T)."""
    p, q = 1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(0.5))
    expected = 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    found = distillation_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, 0.0]]), 2.0)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_distillation_does_not_depend_on_the_batch_size():
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 2), torch.randn(3, 2)
    once = distillation_loss(student, teacher, 5.0)
    seven = distillation_loss(student.repeat(7, 1), teacher.repeat(7, 1), 5.0)
    torch.testing.assert_close(once, seven)
    assert distillation_loss(teacher, teacher, 5.0).item() == pytest.approx(0, abs=1e-6)


def test_no_gradient_reaches_the_teacher():
    teacher = torch.randn(3, 2, requires_grad=True)
    student = torch.randn(3, 2, requires_grad=True)
    for loss in (
        distillation_loss(student, teacher, 2.0),
        mse_loss(student, teacher),
        cosine_loss(student, teacher),
    ):
        loss.backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_feature_losses_by_hand():
    a, b = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [0.0, 2.0]])
    assert mse_loss(a, b).item() == pytest.approx((1 + 1 + 1 + 4) / 4)
    assert cosine_loss(a, b).item() == pytest.approx(((1 - 24 / 25) + 1) / 2)


# The published token ids of OpenAI's tokeniser; 49406 and 49407 are start and end of text.
IDS = {
    "hello world!": [49406, 3306, 1002, 256, 49407],
    "a photo of a cat": [49406, 320, 1125, 539, 320, 2368, 49407],
}


@pytest.mark.parametrize("text", IDS)
def test_tokens(text):
    encoder = ClipTextEncoder(True, True, **TINY_CLIP)
    assert encoder.tokenize([text])[0, : len(IDS[text])].tolist() == IDS[text]


def quick_gelu(x):
    return x / (1 + torch.exp(-1.702 * x))


def transformer(x, weights, layers, heads, keep):
    """A pre-norm transformer; ``keep[i, j]`` says whether token i may look at token j."""
    for i in range(layers):
        w = below(weights, f"resblocks.{i}.")
        normed = norm(x, w, "ln_1")
        rows = [
            attend(
                normed[:, j : j + 1], normed, keep[j].expand(len(x), -1), below(w, "attn."), heads
            )
            for j in range(x.shape[1])
        ]
        x = x + torch.cat(rows, dim=1)
        x = x + linear(quick_gelu(linear(norm(x, w, "ln_2"), w, "mlp.c_fc")), w, "mlp.c_proj")
    return x


def test_text_tower_against_a_loop():
    torch.manual_seed(0)
    encoder = ClipTextEncoder(False, True, **TINY_CLIP).double().eval()
    weights = below(encoder.state_dict(), "text.")
    found, mask = encoder(CAPTIONS[:2])
    for row, caption in enumerate(CAPTIONS[:2]):
        ids = encoder.tokenize([caption])
        x = weights["token_embedding.weight"][ids] + weights["positional_embedding"]  # all 77
        causal = torch.ones(77, 77, dtype=torch.bool).tril()
        x = norm(transformer(x, below(weights, "transformer."), 2, 4, causal), weights, "ln_final")
        length = int(mask[row].sum())
        assert length == ids.argmax() + 1
        torch.testing.assert_close(found[row, :length], x[0, :length])


def test_sentences_are_open_clips():
    torch.manual_seed(0)
    encoder = ClipTextEncoder(True, True, **TINY_CLIP).eval()
    whole = open_clip.create_model("tiny-RN", force_custom_text=True).eval()
    whole.text.load_state_dict(below(encoder.state_dict(), "text."))
    texts = [*CAPTIONS, CAPTIONS[0]]
    with torch.no_grad():
        found, mask = encoder(texts)
        expected = whole.encode_text(encoder.tokenize(texts))
    assert mask.all()
    torch.testing.assert_close(found[:, 0], expected)


def test_a_caption_said_twice_is_encoded_once(monkeypatch):
    encoder = ClipTextEncoder(False, True, **TINY_CLIP).eval()
    seen = watch(monkeypatch)
    words, _ = encoder([CAPTIONS[0], CAPTIONS[1], CAPTIONS[0], CAPTIONS[0]])
    assert seen == [(2, 11)]
    assert torch.equal(words[0], words[2])


def test_words_of_any_script_are_whole():
    encoder = ClipTextEncoder(False, True, **TINY_CLIP)
    said = "裂纹 on the деталь, 3 mm"
    words = encoder.words(said)
    assert [word for word, _ in words] == ["裂纹", "on", "the", "деталь", ",", "3", "mm"]
    places = [place for _, part in words for place in range(part.start, part.stop)]
    assert places == list(range(1, encoder([said])[1].sum() - 1))


@pytest.mark.parametrize("pooled", [False, True])
def test_a_frozen_tower_encodes_each_caption_once(monkeypatch, pooled):
    torch.manual_seed(0)
    free = ClipTextEncoder(pooled, True, **TINY_CLIP).eval()
    frozen = ClipTextEncoder(pooled, True, **TINY_CLIP, train="none").eval()
    frozen.load_state_dict(free.state_dict())
    seen = watch(monkeypatch)
    with torch.inference_mode():
        frozen(CAPTIONS[:2])
    found, mask = frozen(CAPTIONS)
    assert [shape[0] for shape in seen] == [2, len(CAPTIONS) - 2]
    expected, expected_mask = free(CAPTIONS)
    assert torch.equal(mask, expected_mask)
    torch.testing.assert_close(found[mask], expected[mask])
    (found.sum() * torch.ones(1, requires_grad=True)).backward()  # usable in training
    frozen.load_state_dict({k: 2 * v for k, v in free.state_dict().items()})
    assert not torch.allclose(frozen(CAPTIONS)[0][mask], expected[mask])


def watch(monkeypatch):
    """The shapes of the word pieces that go through the transformer, as they come."""
    seen, read = [], clip_text.read_words
    monkeypatch.setattr(
        clip_text, "read_words", lambda text, ids: seen.append(tuple(ids.shape)) or read(text, ids)
    )
    return seen


def test_vit_tower_against_a_loop():
    torch.manual_seed(0)
    options = {"arch": "tiny-ViT", "pre_trained": "random"}
    encoder = ClipImageEncoder((32, 48), False, True, **options).double().eval()
    weights = below(encoder.state_dict(), "visual.")
    image = random_batch(2, 32, 48).image
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    pixels = (image.double() / 255 - mean) / std
    patches = pixels.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).reshape(2, 6, -1)
    x = patches @ weights["conv1.weight"].flatten(1).T
    x = torch.cat([weights["class_embedding"].expand(2, 1, -1), x], dim=1)
    x = norm(x + weights["positional_embedding"], weights, "ln_pre")
    free = torch.ones(7, 7, dtype=torch.bool)
    x = norm(transformer(x, below(weights, "transformer."), 4, 4, free), weights, "ln_post")
    torch.testing.assert_close(encoder(image), x[:, 1:], rtol=1e-6, atol=1e-6)


def test_resnet_tokens_are_the_map_before_the_attention_pool():
    torch.manual_seed(0)
    tokens = ClipImageEncoder((128, 128), False, True, **TINY_CLIP).eval()
    pooled = ClipImageEncoder((128, 128), True, True, **TINY_CLIP).eval()
    pooled.load_state_dict({**pooled.state_dict(), **tokens.state_dict()})
    image = random_batch(2, 128, 128).image
    with torch.no_grad():
        grid = tokens(image).transpose(1, 2).unflatten(-1, (4, 4))
        torch.testing.assert_close(pooled.visual.attnpool(grid), pooled(image)[:, 0])


def test_positions_are_interpolated_between_their_neighbors():
    ramp = torch.arange(4.0).repeat(4, 1).flatten().unsqueeze(1)  # grows to the right
    wide = _interpolate(torch.cat([torch.full((1, 1), 9.0), ramp]), (4, 8), "bicubic")
    assert wide.shape == (33, 1)
    assert wide[0] == 9.0
    rows = wide[1:].view(4, 8)
    torch.testing.assert_close(rows, rows[:1].expand(4, 8))
    assert (rows[0].diff() > 0).all()
    torch.testing.assert_close(rows[0, 3:5], torch.tensor([1.25, 1.75]), rtol=0, atol=0.1)


def test_pixels_are_normalized_as_clip_was_trained():
    encoder = ClipImageEncoder((64, 64), True, True, **TINY_CLIP)
    image = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    expected = (128 / 255 - torch.tensor(open_clip.OPENAI_DATASET_MEAN)) / torch.tensor(
        open_clip.OPENAI_DATASET_STD
    )
    torch.testing.assert_close(encoder.normalize(image)[0, :, 0, 0], expected)
    assert F.mse_loss(encoder.normalize(image)[0, :, 5, 7], expected) < 1e-10


@pytest.mark.slow
def test_unfolding_keeps_the_function_and_fixes_training_mode():
    torch.manual_seed(0)
    network = torchvision.models.resnet18().double().eval()
    for norm in (m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.bias, -1, 1)  # as folded weights have it: mean 0, variance 1
    inputs = [torch.randn(6, 3, 64, 64).double() for _ in range(2)]
    before = network(inputs[0])
    unfold(network, iter(inputs))
    torch.testing.assert_close(network(inputs[0]), before)
    first = network.bn1
    seen = network.conv1(torch.cat(inputs)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(first.running_mean, seen.mean(1))
    torch.testing.assert_close(first.running_var, seen.var(1, unbiased=False))
    together = torch.cat(inputs)
    torch.testing.assert_close(
        network.train()(together), network.eval()(together), rtol=0.1, atol=0.1
    )
