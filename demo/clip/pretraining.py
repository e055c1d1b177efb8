"""The job behind pretrain.py: the small CLIP of the demo, from rendered pictures and sentences."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo import DEMO, OBJECTS
from demo.clip.contrastive import WordTable, contrastive_loss, state_loss, whiten_patches
from demo.clip.muon import muon
from demo.clip.pairs import PairBatch, PairBatches, render_pairs
from demo.clip.sentences import words
from demo.clip.zero_shot import detection, retrieval
from models.encoders.clip import OWN_WEIGHTS, RANDOM, clip_model
from models.encoders.clip_image import ClipImageEncoder
from models.encoders.clip_text import ClipTextEncoder
from utils.batch import Batch
from utils.checkpoint import load_state, save_state, save_weights
from utils.console import say
from utils.device import Machine
from utils.download import sha256_of
from utils.errors import UserError
from utils.runlog import Row, RunLog
from utils.schedules import OneCycle
from utils.seeding import derive, seed_everything
from utils.training import Epoch, Epochs, fit

ARCH = "demo-ViT"
IMAGE_SIZE, GRID = 144, 9
TEST_SIZE = 192  # finds more than 144 does, on the objects it has learned from: docs/demo_clip.md
TRAINED_ON = tuple(name for name in OBJECTS if name not in DEMO)
_LEVELS = [2, 3]  # blocks, counted from 0, whose patches learn; the class token of the last one
#                   reads what the patches of the one before say
_COVERED = 0.02  # share of a patch that a defect covers, for the patch to count as flawed


@dataclass(frozen=True)
class Recipe:
    """What the result depends on.

    Attributes:
        pairs: Pairs of pictures, flawless and flawed.
        epochs: Times each of them is seen.
        batch_size: Pictures per step.
        lr: Learning rate at its highest.
        seed: Everything drawn follows from it.
    """

    pairs: int = 6000
    epochs: int = 8
    batch_size: int = 48
    lr: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UserError if a number is too small."""
        for name, least in (("pairs", self.batch_size // 2), ("epochs", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name}: must be at least {least}, got {getattr(self, name)}")


class ContrastiveLearner(nn.Module):
    """A CLIP in training.

    Args:
        known_words: Words with an embedding of their own; all others share one.
    """

    def __init__(self, known_words: Sequence[str]) -> None:
        super().__init__()
        size = (IMAGE_SIZE, IMAGE_SIZE)
        self.image = ClipImageEncoder(size, True, True, arch=ARCH, pre_trained=RANDOM)
        self.sentence = ClipTextEncoder(True, True, arch=ARCH, pre_trained=RANDOM)
        text = self.sentence.text
        vocabulary, width = text.token_embedding.weight.shape
        ids = set(self.sentence.tokenize(list(known_words)).flatten().tolist())
        text.token_embedding = WordTable(sorted(ids), vocabulary, width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss: sentences, state of the image, state of its patches."""
        assert isinstance(batch, PairBatch)
        assert batch.caption is not None
        scale = self.logit_scale.exp().clamp(max=100)
        normal, anomalous = zip(*batch.opposites, strict=True)
        texts = self.sentence([*batch.caption, *normal, *anomalous])[0][:, 0]
        texts = F.normalize(texts.float(), dim=-1)
        caption, good, bad = texts.split([len(batch), len(normal), len(normal)])
        way = bad - good  # (K, D)
        image, levels = self._look(batch.image)
        cover = batch.cover.flatten()  # (B * N,)
        clear = (cover == 0) | (cover > _COVERED)
        flawed = (cover[clear] > 0).long()
        local = [state_loss(level.flatten(0, 1)[clear], way, flawed, scale) for level in levels]
        terms = {
            "sentences": contrastive_loss(image, caption, batch.truth, scale),
            "state": state_loss(image, way, batch.label, scale),
            "patches": torch.stack(local).mean(),
        }
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def _look(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embeddings of the images ``(B, D)``, and of the patches of some blocks ``(B, N, D)``."""
        visual = self.image.visual
        found = visual.forward_intermediates(
            self.image.normalize(image),
            indices=_LEVELS,
            normalize_intermediates=True,
            output_fmt="NLC",
        )
        levels = [(tokens @ visual.proj).float() for tokens in found["image_intermediates"]]
        whole = F.normalize(found["image_features"].float(), dim=-1)
        return whole, [F.normalize(tokens, dim=-1) for tokens in levels]

    def adapt(self, image: Tensor) -> None:
        """Looks at some pictures before the training: bytes, shape ``(B, 3, H, W)``."""
        whiten_patches(self.image.visual.conv1, self.image.normalize(image))

    def parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The matrices of the transformer blocks, and everything else."""
        parts: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for name, parameter in self.named_parameters():
            parts[not ("resblocks" in name and parameter.ndim == 2)].append(parameter)
        return parts

    def exported(self) -> nn.Module:
        """The trained network as a plain CLIP of open_clip's, in fp16."""
        text = self.sentence.text.state_dict()
        text = {name: value for name, value in text.items() if "token_embedding" not in name}
        text["token_embedding.weight"] = self.sentence.text.token_embedding.expanded()
        state = {f"visual.{name}": value for name, value in self.image.visual.state_dict().items()}
        state |= {f"text.{name}": value for name, value in text.items()}
        model = clip_model(ARCH, None, pre_trained=RANDOM)
        model.load_state_dict({**state, "logit_scale": self.logit_scale.detach()})
        return model.half()


def pretrain(folder: Path, cache: Path, recipe: Recipe) -> Path:
    """Trains the small CLIP, or goes on with it.

    Args:
        folder: Where the state, the log and the result go.
        cache: Where the rendered pictures are kept.
        recipe: What is trained.

    Returns:
        The file with the weights.

    Raises:
        UserError: If the folder holds the training of another recipe.
    """
    machine = Machine.choose("auto", "fp32")
    state = _state_of(folder / "last.pt", recipe)
    history: list[Row] = state["history"] if state else []
    pairs = render_pairs(cache, objects=TRAINED_ON, count=recipe.pairs, seed=recipe.seed)
    seed_everything(derive(recipe.seed, "pretraining", "weights"))
    learner = ContrastiveLearner(words(TRAINED_ON))
    machine.place(learner)
    matrices, others = learner.parts()
    optimizer = muon(matrices, others, lr=recipe.lr, weight_decay=0.05)
    batches = PairBatches(
        pairs,
        image_size=IMAGE_SIZE,
        grid=GRID,
        batch_size=recipe.batch_size,
        seed=derive(recipe.seed, "pretraining"),
    )
    if state:
        learner.load_state_dict(state["learner"])
        optimizer.load_state_dict(state["optimizer"])
    else:
        images = [batch.image for batch in islice(batches.epoch(0), 6)]
        learner.adapt(torch.cat(images).to(machine.device))
    log = RunLog(folder, history)

    def keep(epoch: Epoch) -> None:
        row: Row = {"epoch": epoch.number, "lr": epoch.lr, **epoch.losses, "seconds": epoch.seconds}
        history.append(row)
        save_state(
            {
                "recipe": asdict(recipe),
                "learner": learner.state_dict(),
                "optimizer": optimizer.state_dict(),
                "history": history,
            },
            folder / "last.pt",
        )
        log.update()
        terms = ", ".join(f"{name} {value:.3f}" for name, value in epoch.losses.items())
        say(f"{epoch.number}/{recipe.epochs}: {terms}, {epoch.images_per_second:.0f} images/s")

    fit(
        learner,
        batches,
        optimizer,
        OneCycle(recipe.epochs, warmup=0.15),
        epochs=Epochs(
            "pretraining",
            range(len(history), recipe.epochs),
            derive(recipe.seed, "pretraining", "fit"),
        ),
        machine=machine,
        on_epoch=keep,
    )
    log.close()
    file = folder / "demo_clip.safetensors"
    save_weights(learner.exported(), file, {"arch": ARCH, "recipe": asdict(recipe)})
    seconds = sum(row["seconds"] for row in history)
    say(f"trained in {seconds / 60:.1f} minutes: {file}")
    return file


def report(file: Path, demo: Path, seed: int) -> None:
    """Prints how good the weights in ``file`` are, and whether they are the repository's.

    Args:
        file: What :func:`pretrain` wrote.
        demo: The rendered data of the demo, whose objects were not trained on.
        seed: That of the training; the pictures of the first table are drawn from another.
    """
    seen = retrieval(ARCH, file, TEST_SIZE, TRAINED_ON, count=40, seed=derive(seed, "report"))
    say("\nThe right one of several sentences, fresh pictures of objects it has learned from, %:\n")
    say(seen.to_markdown(floatfmt=".1f"))
    say("\nObjects it has never seen, test images of the demo, AUROC / AUPR, by the prompts of:\n")
    say(detection(ARCH, file, TEST_SIZE, demo).to_markdown())
    found, (_, known) = sha256_of(file), OWN_WEIGHTS[ARCH, "demo"]
    same = "as" if found == known else "not as"
    say(f"\n{file}: SHA-256 {found}, {same} in models/encoders/weights")


def _state_of(file: Path, recipe: Recipe) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    state = load_state(file)
    if state["recipe"] != asdict(recipe):
        raise UserError(
            f"{file.parent}: holds the training of {state['recipe']}, not of {asdict(recipe)}; "
            "choose another --dir"
        )
    return state
