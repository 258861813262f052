"""The stages of a push, one file or package each: load, preflight, plan, stage, transfer, commit, verify, approve,
cleanup.

Each is pure functions with a thin ``@task`` over them. A stage imports the packages that all stages share (values,
bids, disk, hub, record, runs, report) and libraries, never another stage (`tests/test_house.py`).
"""
