"""Makes a dataset to try everything on: the tree of OpenNeuro ds004884, with phantoms in place of its images.

`make_dataset(out)` writes 902 sessions of 230 subjects: 9,351 texts byte for byte as published, and 5,164 images that
are computed on the spot (nothing is downloaded), the same bytes every time. On the command line:
`python -m deployments.demo_data OUT`. The way of an image: `source` (what is published) > `cut` (which
sessions) > `sizes` (how large) > `phantom` (the head) > `make_image` (noise, volumes) > `nifti`, `deflate` (the
file) > `tree` (the folder).
"""

from deployments.demo_data.tree import (
    BusyFolderError,
    DemoDataError,
    DemoSummary,
    NotOurFolderError,
    StoppedError,
    make_dataset,
)

__all__ = ["BusyFolderError", "DemoDataError", "DemoSummary", "NotOurFolderError", "StoppedError", "make_dataset"]
