"""Validation images, augmentation, and the order and content of batches."""

from collections import Counter

import pytest
import torch

from datasets.augment import Augment, Augmentation
from datasets.captions import Captions
from datasets.image import View
from datasets.image_text import SAMPLERS, Batches, Guide, ImageText
from datasets.pixels import DecodedPixels
from datasets.readers import visa
from datasets.record import Record
from datasets.split import carve_validation
from jobs.build import training_batches
from options.load import load
from tests.fixtures import job_of
from utils.errors import UserError
from utils.ranks import Share

CPU = torch.device("cpu")
VIEW = View((16, 24), "full")


def records(normals, anomalies, name="a"):
    return [
        Record(path=f"{name}/{label}/{i}", object=name, label=label)
        for label, count in ((0, normals), (1, anomalies))
        for i in range(count)
    ]


def test_validation_is_stratified_and_disjoint():
    everything = records(300, 60) + records(50, 10, "b")
    train, val = carve_validation(everything, 0.2, seed=3)
    assert sorted(r.path for r in train + val) == sorted(r.path for r in everything)
    tally = Counter((r.object, r.label) for r in val)
    assert tally == {("a", 0): 60, ("a", 1): 12, ("b", 0): 10, ("b", 1): 2}


def test_validation_depends_on_the_seed_alone():
    everything = records(30, 6)
    assert carve_validation(everything, 0.2, 1) == carve_validation(everything, 0.2, 1)
    assert carve_validation(everything, 0.2, 1) != carve_validation(everything, 0.2, 2)
    same = {r.path for r in carve_validation(everything[::-1], 0.2, 1)[1]}
    assert len(same) == 7


@pytest.mark.parametrize(
    ("normals", "anomalies", "message"),
    [(10, 0, "hold no anomalous image"), (0, 10, "hold no normal image"), (10, 1, "no anomalous")],
)
def test_a_class_that_is_missing(normals, anomalies, message):
    with pytest.raises(UserError, match=message):
        carve_validation(records(normals, anomalies), 0.2, 0)


def images(root, **options):
    splits = visa.read_visa(root, split="2cls_highshot")
    return ImageText(DecodedPixels(root, splits["train"], VIEW), splits["train"], **options)


def paths(batches, epoch):
    return [path for batch in batches.epoch(epoch) for path in batch.path]


def test_evaluation_sees_every_image_once_in_order(visa_root):
    data = images(visa_root)
    batches = Batches(data, 6, sampler=None, num_workers=0, device=CPU)
    assert [path for batch in batches for path in batch.path] == [r.path for r in data.records]
    assert batches.num_images == len(data) == 20
    assert len(batches) == 4


def test_training_order_follows_from_seed_and_epoch(visa_root):
    data = images(visa_root)
    batches = Batches(data, 6, sampler="shuffle", num_workers=0, device=CPU, seed=1)
    first, second = paths(batches, 0), paths(batches, 1)
    assert batches.num_images == len(first) == len(set(first)) == 18  # the last two make no batch
    assert first != second
    assert paths(batches, 0) == first
    other = Batches(data, 6, sampler="shuffle", num_workers=0, device=CPU, seed=2)
    assert paths(other, 0) != first


def test_fewer_images_than_a_batch_are_still_a_batch(visa_root):
    batches = Batches(images(visa_root), 64, sampler="shuffle", num_workers=0, device=CPU)
    assert len(paths(batches, 0)) == batches.num_images == 20


@pytest.mark.parametrize("sampler", ["shuffle", None])
def test_processes_share_out_the_batches_of_one(visa_root, sampler):
    data = images(visa_root)

    def batches(rank, size):
        part = Share(rank, size)
        return list(Batches(data, 6, sampler=sampler, num_workers=0, device=CPU, part=part))

    whole = [path for batch in batches(0, 1) for path in batch.path]
    parts = [[path for batch in batches(rank, 3) for path in batch.path] for rank in range(3)]
    assert [parts[i % 3][i // 3] for i in range(len(whole))] == whole
    if sampler:
        assert {len(batch) for rank in range(3) for batch in batches(rank, 3)} == {2}


def test_a_batch_that_cannot_be_shared_out(visa_root):
    data = images(visa_root)
    with pytest.raises(UserError, match="batch_size: 6 images cannot be shared out evenly among 4"):
        Batches(data, 6, sampler="shuffle", num_workers=0, device=CPU, part=Share(0, 4))


def test_balanced_draws_both_labels_equally_often():
    labels = torch.tensor([0] * 900 + [1] * 100)
    drawn = SAMPLERS["balanced"](labels, torch.Generator().manual_seed(0))
    assert len(drawn) == 1000
    assert labels[drawn].float().mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker")  # on a single core
def test_worker_processes_change_nothing(visa_root):
    augmentation = Augmentation(Augment(horizontal_flip=0.5, brightness=0.3), (16, 24))
    data = images(visa_root, augmentation=augmentation, captions=Captions("sentence", 0.5, 0))

    def everything(workers):
        batches = Batches(data, 6, sampler="shuffle", num_workers=workers, device=CPU, seed=1)
        return list(batches.epoch(3))

    for one, two in zip(everything(0), everything(2), strict=True):
        assert torch.equal(one.image, two.image)
        assert one.caption == two.caption


def test_processes_do_not_change_what_dropout_draws(visa_root):
    def drawn(workers):
        batches = Batches(images(visa_root), 6, sampler=None, num_workers=workers, device=CPU)
        torch.manual_seed(0)
        return [(list(batches.epoch(number)), torch.rand(()).item())[1] for number in range(3)]

    assert drawn(0) == drawn(1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_one_clear_error(visa_root, workers):
    (visa_root / "candle/Data/Images/Normal/000.JPG").write_bytes(b"")
    batches = Batches(images(visa_root), 6, sampler=None, num_workers=workers, device=CPU)
    with pytest.raises(UserError) as caught:
        list(batches)
    where, _, problem = str(caught.value).partition(": ")
    assert where.endswith("000.JPG")
    assert problem.startswith("is not a picture (0 bytes); replace or remove it")
    assert "dataset.skip_broken" in problem


def test_a_network_that_reads_no_text_is_given_none(visa_root):
    data = images(visa_root)
    assert {record.defect for record in data.records} == {""}
    batch = next(iter(Batches(data, 4, sampler=None, num_workers=0, device=CPU)))
    assert batch.caption is None
    assert batch.guide is None


def test_the_guide_sees_the_clean_picture_in_its_own_view(visa_root):
    train = visa.read_visa(visa_root, split="2cls_highshot")["train"]
    pixels = DecodedPixels(visa_root, train, View((8, 8), "center_crop"))
    guide = Guide(pixels, Captions("label", 0.0, 0))
    augmentation = Augmentation(Augment(horizontal_flip=1.0), (16, 24))
    data = images(visa_root, guide=guide, augmentation=augmentation)
    batch = next(iter(Batches(data, 4, sampler=None, num_workers=0, device=CPU)))
    plain = next(iter(Batches(images(visa_root), 4, sampler=None, num_workers=0, device=CPU)))
    assert batch.caption is None
    assert batch.guide.image.shape == (4, 3, 8, 8)
    assert batch.guide.caption == ["normal"] * 4
    assert torch.equal(batch.image, plain.image.flip(-1))


CHANGES = {
    "horizontal_flip": 1.0,
    "vertical_flip": 1.0,
    "rotation": 90.0,
    "crop": 0.3,
    "brightness": 0.9,
    "contrast": 0.9,
    "saturation": 0.9,
    "hue": 0.5,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_augmentation_changes_the_image_and_keeps_its_size(name):
    image = torch.randint(0, 256, (3, 16, 24), dtype=torch.uint8)
    change = Augmentation(Augment(**{name: CHANGES[name]}), (16, 24))
    mask = torch.arange(16 * 24, dtype=torch.uint8).view(16, 24) % 2
    changed, moved = change(image, 5, mask)
    assert moved.shape == mask.shape
    assert set(moved.unique().tolist()) <= {0, 1}
    assert changed.shape == image.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, image)
    assert torch.equal(changed, change(image, 5)[0])
    assert torch.equal(moved, change(image, 5, mask)[1])


@pytest.mark.slow
def test_crops_are_cut_out_of_larger_pictures(smoke):
    """The smallest crop is as large as what the network sees: nothing is blown up."""
    run = load(smoke / "smoke.yaml", ["student.augment.crop=0.25"])
    batches = training_batches(job_of(run))
    assert batches.loader.dataset.pixels.decoded.view.size == (64, 128)
    assert next(batches.epoch(0)).image.shape == (4, 3, 32, 64)


def test_no_augmentation_is_the_default():
    image = torch.randint(0, 256, (3, 16, 24), dtype=torch.uint8)
    assert Augmentation(Augment(), (16, 24))(image, seed=5)[0] is image


def test_augmentation_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Augmentation(Augment(rotation=9.0), (16, 24))(torch.zeros(3, 16, 24, dtype=torch.uint8), seed=5)
    assert torch.equal(torch.get_rng_state(), before)
