"""What VisA calls its defects, with its own spelling.

Source:
    ``utils/id2class.py`` of https://github.com/amazon-science/spot-diff.
"""


def _labels(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


# Every label VisA has for an object, in the order of its mask values, which start at 1.
VOCABULARY = {
    "candle": _labels(
        "chunk of wax missing, damaged corner of packaging, weird candle wick, "
        "different colour spot, extra wax in candle, foreign particals on candle, "
        "wax melded out of the candle, other"
    ),
    "capsules": _labels("bubble, discolor, scratch, leak, misshape"),
    "cashew": _labels(
        "burnt, corner or edge breakage, different colour spot, middle breakage, small holes, "
        "small scratches, stuck together, same colour spot, other"
    ),
    "chewinggum": _labels(
        "chunk of gum missing, corner missing, scratches, similar colour spot, small cracks, other"
    ),
    "fryum": _labels(
        "burnt, corner or edge breakage, different colour spot, fryum stuck together, "
        "middle breakage, similar colour spot, small scratches, other"
    ),
    "macaroni1": _labels(
        "chip around edge and corner, different colour spot, middle breakage, "
        "similar colour spot, small cracks, small scratches, other"
    ),
    "macaroni2": _labels(
        "breakage down the middle, color spot similar to the object, different color spot, "
        "small chip around edge, small cracks, small scratches, other"
    ),
    "pcb1": _labels("bent, melt, scratch, missing"),
    "pcb2": _labels("bent, melt, scratch, missing"),
    "pcb3": _labels("bent, melt, scratch, missing"),
    "pcb4": _labels("burnt, scratch, missing, damage, extra, wrong place, dirt"),
    "pipe_fryum": _labels(
        "burnt, corner and edge breakage, different colour spot, middle breakage, "
        "similar colour spot, small scratches, stuck together, small cracks, other"
    ),
}
