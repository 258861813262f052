"""The soak: rounds of SIGKILL and other faults at random instants, each ended by one clean run that must mend it all.

`python -m soak --rounds 300 [--seed 1]`; `make soak ROUNDS=300`. `rig` is what runs, `faults` what breaks it,
`hazards` what else a round may meet, `judge` what must hold afterwards.
"""

import os

os.environ["HF_HUB_DISABLE_XET"] = (
    "1"  # the soak's own client: it keeps no cache that a wound-back Hub would contradict
)
