"""Loading weights: by tag, by file of every kind, and never silently none."""

import hashlib
import http.server
import os
import threading
import warnings
import zipfile
from argparse import Namespace
from types import SimpleNamespace

import open_clip
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from models.encoders import clip
from models.encoders.clip import clip_model
from models.encoders.clip_image import ClipImageEncoder
from models.encoders.clip_text import ClipTextEncoder
from models.encoders.torchvision_image import TorchvisionImageEncoder
from tests.fixtures import random_batch
from utils.download import fetch
from utils.errors import UserError
from utils.torchscript import read_torchscript
from utils.weights import read_state

ARCH = "tiny-RN"


class Archive(nn.Module):
    """What OpenAI's TorchScript files look like from outside: names, fp16, three constants."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            holder = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(holder, part):
                    holder.add_module(part, nn.Module())
                holder = getattr(holder, part)
            holder.register_buffer(last, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


WRAPPED = (  # file, entry with the state dict, prefix of the names
    ("parallel.pt", "state_dict", "module."),
    ("lightning.ckpt", "state_dict", "model."),
    ("compiled.pt", "model", "_orig_mod."),
    ("backbone.pth", "", "backbone."),
    ("both.pth", "model", "module._orig_mod.model.backbone."),
)


@pytest.fixture(scope="module")
def openai_state():
    """A state dict as OpenAI names it: the text tower's parts lie at the top."""
    torch.manual_seed(1)
    state = open_clip.create_model(ARCH, force_custom_text=False).state_dict()
    state["input_resolution"] = torch.tensor(128)
    state["context_length"] = torch.tensor(77)
    state["vocab_size"] = torch.tensor(49408)
    return {n: v.half() if v.is_floating_point() else v for n, v in state.items()}


@pytest.fixture(scope="module")
def files(openai_state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_file({n: v.clone() for n, v in openai_state.items()}, folder / "a.safetensors")
    torch.save(openai_state, folder / "a.pt")
    for name, entry, prefix in WRAPPED:
        wrapped = {f"{prefix}{n}": v for n, v in openai_state.items()}
        torch.save({"epoch": 3, entry: wrapped} if entry else wrapped, folder / name)
    with warnings.catch_warnings():  # whichever test comes first makes the files
        warnings.filterwarnings("ignore", ".*torch.jit", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        torch.jit.script(Archive(openai_state)).save(str(folder / "openai.pt"))
    return folder


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "openai.pt", *(w[0] for w in WRAPPED)])
def test_a_file_of_every_kind(files, openai_state, name):
    model = clip_model(ARCH, None, pre_trained=str(files / name))
    found = model.state_dict()
    assert found["visual.conv1.weight"].dtype == torch.float32
    for ours, theirs in (
        ("visual.conv1.weight", "visual.conv1.weight"),
        ("text.token_embedding.weight", "token_embedding.weight"),
        ("text.text_projection", "text_projection"),
        ("logit_scale", "logit_scale"),
    ):
        assert torch.equal(found[ours], openai_state[theirs].float())


def test_both_towers_take_their_part_of_a_file(files):
    options = {"arch": ARCH, "pre_trained": str(files / "a.pt")}
    image, again = (ClipImageEncoder((128, 192), True, True, **options).eval() for _ in range(2))
    batch = random_batch(2, 128, 192)
    assert torch.equal(image(batch.image), again(batch.image))
    text, again = (ClipTextEncoder(True, True, **options).eval() for _ in range(2))
    assert torch.equal(text(batch.caption)[0], again(batch.caption)[0])


def test_random_is_random_and_follows_the_seed():
    torch.manual_seed(0)
    one = clip_model(ARCH, None, pre_trained="random").visual.conv1.weight
    other = clip_model(ARCH, None, pre_trained="random").visual.conv1.weight
    torch.manual_seed(0)
    again = clip_model(ARCH, None, pre_trained="random").visual.conv1.weight
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_openais_archive_needs_quick_gelu(files, monkeypatch):
    config = open_clip.get_model_config(ARCH)
    monkeypatch.setattr(open_clip, "get_model_config", lambda arch: {**config, "quick_gelu": False})
    with pytest.raises(
        ValueError, match="were trained with QuickGELU, tiny-RN runs GELU; write arch"
    ):
        clip_model(ARCH, None, pre_trained=str(files / "openai.pt"))


@pytest.mark.parametrize(
    ("arch", "pre_trained", "message"),
    [
        (
            "RN50",
            "openai",
            "'openai' were trained with QuickGELU, RN50 runs GELU; write arch: RN50-q",
        ),
        ("RN51", "openai", "unknown arch 'RN51'"),
        (ARCH, "openai", "neither a file nor a tag of tiny-RN"),
        (ARCH, "a" * 300, "neither a file nor a tag of tiny-RN"),
        (ARCH, "~nobody-/x", "neither a file nor a tag of tiny-RN"),
        (ARCH, "none.pt", r"neither a file nor a tag of tiny-RN \(tags: none\); write random"),
    ],
)
def test_weights_that_do_not_belong_to_the_architecture(arch, pre_trained, message, monkeypatch):
    monkeypatch.setattr(clip, "fetch", lambda *a, **k: pytest.fail("must not get this far"))
    with pytest.raises(ValueError, match=message):
        clip_model(arch, None, pre_trained=pre_trained)


def test_an_architecture_that_the_hub_does_not_have(monkeypatch):
    def fail(arch):
        raise FileNotFoundError("Failed to download file\nand a page of advice")

    monkeypatch.setattr(open_clip, "get_model_config", fail)
    with pytest.raises(ValueError, match=r"hf-hub:x/y cannot be had: Failed to download file$"):
        clip_model("hf-hub:x/y", None, pre_trained="random")


def test_weights_of_another_shape(files):
    with pytest.raises(ValueError, match="the weights do not fit the architecture"):
        clip_model("tiny-ViT", None, pre_trained=str(files / "a.pt"))


def test_a_checksum_is_checked(files):
    sha256 = hashlib.sha256((files / "a.pt").read_bytes()).hexdigest()
    clip_model(ARCH, None, pre_trained=str(files / "a.pt"), sha256=sha256)
    with pytest.raises(UserError, match="SHA-256 is"):
        clip_model(ARCH, None, pre_trained=str(files / "a.pt"), sha256="ab")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.pt", b""),
        ("x.pt", b"no"),
        ("x.pt", b"hello"),  # KeyError
        ("x.pt", b"a"),  # IndexError
        ("x.pt", b"X\x01\x00\x00\x00\xff"),  # UnicodeDecodeError
        ("x.safetensors", b"no"),
    ],
)
def test_a_damaged_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as weights"):
        clip_model(ARCH, None, pre_trained=str(tmp_path / name))


def test_a_file_of_something_else(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="expected a state dict"):
        read_state(tmp_path / "x.pt")


@pytest.mark.parametrize("entries", ["model_state_dict", "model state_dict", "state_dict model"])
def test_entries_of_a_trainings_file(tmp_path, entries):
    content = {"module.a": torch.ones(2)}
    for entry in entries.split():
        content = {"epoch": 3, entry: content}
    torch.save(content, tmp_path / "x.pt")
    assert list(read_state(tmp_path / "x.pt")) == ["a"]


def test_a_file_that_holds_itself_ends(tmp_path):
    content = {"epoch": 3}
    content["model"] = content
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match="expected a state dict"):
        read_state(tmp_path / "x.pt")


def test_a_trainings_file_with_other_objects(tmp_path):
    torch.save({"model": {"a": torch.ones(2)}, "args": Namespace(lr=1)}, tmp_path / "x.pt")
    with pytest.raises(UserError) as caught:
        read_state(tmp_path / "x.pt")
    assert str(caught.value) == (
        f"{tmp_path}/x.pt: cannot be read as weights (damaged, or not tensors alone: save the "
        "state dict alone, where it comes from)"
    )


class Payload(nn.Module):
    """An archive that writes a file when TorchScript loads it."""

    def __init__(self, file: str):
        super().__init__()
        self.weight, self.file = torch.ones(2), file

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.file

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str]):
        self.file, self.training = state[1], False
        self.weight = torch.from_file(self.file, True, 2)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_an_archive_executes_nothing(tmp_path):
    trace = tmp_path / "it was executed"
    torch.jit.script(Payload(str(trace))).save(str(tmp_path / "payload.pt"))
    torch.jit.load(str(tmp_path / "payload.pt"))
    assert trace.exists()  # the payload is a real one
    trace.unlink()
    with pytest.raises(UserError, match=r"payload\.pt: cannot be read as weights"):
        clip_model(ARCH, None, pre_trained=str(tmp_path / "payload.pt"))
    assert not trace.exists()


class Kinds(nn.Module):
    """Tensors of many kinds: parameters and buffers, and attributes that are neither."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
        for dtype in (torch.half, torch.bfloat16, torch.double, torch.long, torch.bool):
            self.register_buffer(f"of_{dtype}".replace(".", "_"), torch.ones(2, 1, 3, dtype=dtype))
        self.register_buffer("view", torch.arange(20)[3:17:2])
        self.register_buffer("empty", torch.ones(3, 0))
        self.attribute, self.texts, self.of = torch.ones(2), ["a"], {"b": torch.ones(1)}
        self.layers = nn.ModuleList([nn.BatchNorm2d(2), nn.Linear(2, 1)])

    def forward(self, x: torch.Tensor):
        return self.layers[1](x) + self.attribute.sum() + self.of["b"], self.texts


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_an_archive_holds_what_torch_says(tmp_path):
    file = tmp_path / "kinds.pt"
    torch.jit.script(Kinds()).save(str(file))
    expected, found = torch.jit.load(str(file)).state_dict(), read_torchscript(file)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


# Pickles that call a function; mutual, endless and large structures; sizes that do not fit.
PICKLES = (
    b"cos\nsystem\n(S'touch x'\ntR.",
    b"cbuiltins\neval\n(S'1'\ntR.",
    b"c__torch__\nA\n)\x81}(X\x01\x00\x00\x00ah\x00ub.",
    b"\x80\x02c__torch__\nA\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00ub.",
    b"\x80\x02)r\xff\xff\xff\x7f.",
    b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.",
    b"]" * 100_000 + b".",
    b"",
    b"N.",
)


@pytest.mark.parametrize("pickle", PICKLES)
def test_an_archive_with_another_pickle(tmp_path, pickle, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("x.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickle)
        archive.writestr(
            "x/code/__torch__.py", "class A(Module):\n  __parameters__ = []\n  __buffers__ = []\n"
        )
    with pytest.raises(UserError, match=r"x\.pt: cannot be read as weights \(.+\)$"):
        read_state(tmp_path / "x.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_an_archive_whose_code_would_fill_the_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"c__torch__\nA\n)\x81}b.")
        archive.writestr("x/code/__torch__.py", b" " * (2 << 20))
    with pytest.raises(UserError, match=r"x\.pt: .*code/__torch__\.py is too large"):
        read_state(tmp_path / "x.pt")


def test_every_flipped_byte_of_an_archives_tensors_is_noticed(files, tmp_path):
    content, file = bytearray((files / "openai.pt").read_bytes()), tmp_path / "x.pt"
    for place in range(len(content) // 20, len(content) * 4 // 5, len(content) // 20):
        content[place] ^= 4
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"x\.pt: cannot be read as weights"):
            read_state(file)
        content[place] ^= 4


def test_two_networks_in_one_file_are_left_as_they_are(tmp_path):
    torch.save({"model.a": torch.zeros(1), "backbone.a": torch.ones(1)}, tmp_path / "x.pt")
    assert list(read_state(tmp_path / "x.pt")) == ["model.a", "backbone.a"]


def test_a_user_without_a_folder(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no such user in the system
    with pytest.raises(UserError, match=r"x\.pt: downloads are kept here, but .*; set HOME"):
        fetch("http://127.0.0.1:9/x.pt", clip.CACHE / "x.pt")


@pytest.fixture
def server(files):
    content = (files / "a.pt").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", hashlib.sha256(content).hexdigest()
        server.shutdown()


def tag(monkeypatch, tmp_path, url, quick_gelu=True):
    """Makes open_clip's table of tags name ``url``."""
    monkeypatch.setattr(clip, "CACHE", tmp_path)
    cfg = {"url": url, "quick_gelu": quick_gelu, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    monkeypatch.setattr(
        open_clip, "get_pretrained_cfg", lambda arch, name: cfg if name == "a_tag" else {}
    )


def test_a_tag_is_fetched_checked_and_kept(server, monkeypatch, tmp_path, openai_state):
    address, sha256 = server
    tag(monkeypatch, tmp_path, f"{address}/clip/models/{sha256}/tiny.pt")  # OpenAI's way
    encoder = ClipImageEncoder((128, 128), True, True, arch=ARCH, pre_trained="a_tag")
    assert torch.equal(encoder.visual.conv1.weight, openai_state["visual.conv1.weight"].float())
    assert encoder.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert encoder.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert {p.name for p in tmp_path.iterdir()} == {"tiny.pt", "tiny.pt.lock"}
    tag(monkeypatch, tmp_path, f"http://127.0.0.1:9/clip/models/{sha256}/tiny.pt")
    ClipImageEncoder((128, 128), True, True, arch=ARCH, pre_trained="a_tag")  # from the cache


@pytest.mark.parametrize("path", ["clip/models/{bad}/tiny.pt", "v0.2/tiny-{bad8}.pt"])
def test_a_tag_with_other_content_is_an_error(server, monkeypatch, tmp_path, path):
    address, _ = server
    tag(monkeypatch, tmp_path, f"{address}/{path.format(bad='0' * 64, bad8='0' * 8)}")
    with pytest.raises(UserError, match="SHA-256 is"):
        ClipImageEncoder((128, 128), True, True, arch=ARCH, pre_trained="a_tag")
    assert [p.suffix for p in tmp_path.iterdir()] == [".lock"]


def test_a_tag_with_another_activation_is_an_error(monkeypatch, tmp_path):
    tag(monkeypatch, tmp_path, "http://127.0.0.1:9/tiny.pt", quick_gelu=False)
    with pytest.raises(
        ValueError, match="trained with GELU, tiny-RN runs QuickGELU; write arch: tiny"
    ):
        clip_model(ARCH, None, pre_trained="a_tag")


def test_a_tag_that_cannot_be_fetched_is_an_error(monkeypatch, tmp_path):
    tag(monkeypatch, tmp_path, "http://127.0.0.1:9/tiny.pt")
    with pytest.raises(UserError, match="cannot be downloaded"):
        ClipImageEncoder((128, 128), True, True, arch=ARCH, pre_trained="a_tag")


def test_a_tag_of_the_hub_that_cannot_be_fetched_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(
        open_clip, "get_pretrained_cfg", lambda *_: {"hf_hub": "no/such", "quick_gelu": True}
    )

    def fail(cfg):
        raise FileNotFoundError("no network")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(UserError, match=r"cannot be downloaded \(no network\); download no/such"):
        clip_model(ARCH, None, pre_trained="a_tag")


def test_a_checkpoint_of_ours_needs_no_file():
    encoder = ClipImageEncoder((128, 128), True, False, arch=ARCH, pre_trained="gone.pt")
    assert encoder.feature_dim == 128
    encoder = TorchvisionImageEncoder((64, 64), True, False, arch="resnet18", pre_trained="gone.pt")
    assert encoder.feature_dim == 512


@pytest.mark.parametrize(("size", "arch"), [((100, 128), ARCH), ((64, 72), "tiny-ViT")])
def test_a_size_that_would_lose_a_border(size, arch):
    with pytest.raises(ValueError, match=r"image.size .* must be a multiple of"):
        ClipImageEncoder(size, False, True, arch=arch, pre_trained="random")


def test_a_text_tower_that_is_not_clips(monkeypatch):
    other = SimpleNamespace(text=nn.Identity())
    monkeypatch.setattr("models.encoders.clip_text.clip_model", lambda *a, **k: other)
    with pytest.raises(ValueError, match="the text tower of roberta is not CLIP's own"):
        ClipTextEncoder(False, False, arch="roberta", pre_trained="random")


def test_torchvision_weights_from_a_file(tmp_path):
    source = TorchvisionImageEncoder((64, 64), True, True, arch="mobilenet_v2", pre_trained="false")
    network = torchvision.models.mobilenet_v2()
    save_file(
        {n: v.half() if v.is_floating_point() else v for n, v in network.state_dict().items()},
        tmp_path / "m.safetensors",
    )
    found = TorchvisionImageEncoder(
        (64, 64), True, True, arch="mobilenet_v2", pre_trained=str(tmp_path / "m.safetensors")
    )
    wanted = network.features[0][0].weight.half().float()
    assert torch.equal(found.trunk[0][0].weight, wanted)
    assert not torch.equal(source.trunk[0][0].weight, wanted)


@pytest.mark.parametrize("has_counters", [True, False])
def test_torchvision_weights_with_and_without_counted_batches(tmp_path, has_counters):
    """Files from before BatchNorm counted them, resnet50-0676ba61.pth say, have no such entries."""
    state = torchvision.models.mobilenet_v3_small().state_dict()
    kept = {n: v for n, v in state.items() if has_counters or "num_batches_tracked" not in n}
    torch.save(kept, tmp_path / "r.pth")
    found = TorchvisionImageEncoder(
        (64, 64), True, True, arch="mobilenet_v3_small", pre_trained=str(tmp_path / "r.pth")
    )
    assert torch.equal(found.trunk[0][0].weight, state["features.0.0.weight"])


def test_torchvision_weights_of_another_network(tmp_path):
    source = TorchvisionImageEncoder((64, 64), True, True, arch="resnet18", pre_trained="false")
    torch.save(source.trunk.state_dict(), tmp_path / "m.pt")
    with pytest.raises(
        ValueError, match=r"m\.pt: these are not the weights of resnet18: '0.weight'"
    ):
        TorchvisionImageEncoder(
            (64, 64), True, True, arch="resnet18", pre_trained=str(tmp_path / "m.pt")
        )


def test_torchvision_weights_that_are_not_there(monkeypatch, tmp_path):
    with pytest.raises(
        ValueError, match=r"'maybe' is not a file; write a file, true, false, or IMA"
    ):
        TorchvisionImageEncoder((64, 64), True, True, arch="resnet50", pre_trained="maybe")


@pytest.mark.parametrize(
    ("pre_trained", "name"), [("true", "11ad3fa6"), ("IMAGENET1K_V1", "0676ba61")]
)
def test_torchvision_weights_are_fetched_with_their_checksum(
    monkeypatch, tmp_path, pre_trained, name
):
    asked = []

    def fetch(url, path, *, sha256):
        asked.append((url, sha256))
        raise UserError("no network")

    monkeypatch.setattr("models.encoders.torchvision_image.fetch", fetch)
    with pytest.raises(UserError, match="no network"):
        TorchvisionImageEncoder((64, 64), True, True, arch="resnet50", pre_trained=pre_trained)
    assert asked == [(f"https://download.pytorch.org/models/resnet50-{name}.pth", name)]
