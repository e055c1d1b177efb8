"""Looks at every image of a data set before anybody trains on it.

    python -m datasets.check                                # options/KDstudent.yaml
    python -m datasets.check options/demo.yaml dataset.objects=[pcb1]

Prints one table, and one line for each thing that is wrong; writes the same, with a contact sheet
of each object, as data_report.md. docs/check.md says what is looked for and how.
"""

from datasets.check.inspection import Inspection, inspect

__all__ = ["Inspection", "inspect"]
