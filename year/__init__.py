"""A year of nights: one dataset that a seeded script lives in, published night after night, and judged after each.

`python -m year --nights 365 --seed 1`; `make year`. `world` is the dataset and what its lab does to it, `script` draws
what happens each night, `people` decide at gates, `rig` has the servers and runs the flow runs, `warm` is the process
that they are forked from, `repo` reads the Hub, and `oracle` says what must be there: from the dataset and from what
people approved, never from what bids-push decided. `calendar` is the loop over the nights.

The clock is fast: nights follow each other at once, and the waits of `tasks.hub.retries` are cut to nothing (`warm`).
All else is as in a lab: a Prefect server, flow runs of a deployment (a process each), the local Hub over HTTP.
"""

import os

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # of the year's own client, which reads and plays strangers
