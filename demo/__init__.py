"""A small rendered data set in VisA's exact layout, so that everything runs without a download.

    python -m demo --root data/demo --seed 0

A product is an outline (a signed distance), a relief and a color per pixel. A defect changes these
three. Then the scene is lit and photographed: a normal and an anomalous picture can have the same
pose, light, texture and noise, and differ only in the defect.

Object names, defect labels and mask values are VisA's own (Zou et al. 2022, arXiv 2207.14315, and
``utils/id2class.py`` of amazon-science/spot-diff), with their spelling; the pictures are not.
"""

from demo.defects import DEFECTS, defects_of
from demo.files import ANOMALIES, DEMO, NORMALS, SIZE, plan, write
from demo.picture import render
from demo.products import OBJECTS
from demo.vocabulary import VOCABULARY

__all__ = [
    "ANOMALIES",
    "DEFECTS",
    "DEMO",
    "NORMALS",
    "OBJECTS",
    "SIZE",
    "VOCABULARY",
    "defects_of",
    "plan",
    "render",
    "write",
]
