"""The stages of a push, one file or package each.

In the order of the chain they are load, check (`preflight`), plan, stage, transfer, commit, verify, approve, cleanup.
Each is pure functions with a thin ``@task`` over them. A stage imports the packages that all stages share (values,
bids, disk, hub, record, runs, report) and libraries, and no other stage but its own parts (`tests/test_house.py`).
"""
