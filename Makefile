# Every command sets up what it needs: a virtual environment in the clone, with pinned packages.
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(if $(shell $(p) -c 'import sys; print(int((3,11) <= sys.version_info[:2] <= (3,14)))' 2>/dev/null | grep 1),$(p))))
VENV := .venv
BIN := $(VENV)/bin
SOURCES := flows tasks deployments tests benchmarks soak year
SESSIONS ?=
ROUNDS ?= 300
NIGHTS ?= 365
SEED ?= 1
FOLDER ?= .
TESTERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup local-hub dev validator recordings cluster browser deploy worker demo demo-once pictures test test-fast coverage test-sqlite test-postgresql fmt lint types mutants corpus bench hub-suites soak soak-cluster year staging requirements pins tag clean

help:  ## these lines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "bids-push needs Python 3.11, 3.12, 3.13 or 3.14 on the PATH (or: make PYTHON=/path/to/python3.12 ...)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@ $(VENV)/.run $(VENV)/.local-hub $(VENV)/.recordings $(VENV)/.cluster

$(VENV)/.local-hub: requirements/local-hub.txt $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/local-hub.txt
	@touch $@

$(VENV)/.validator: requirements/validator.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/validator.txt
	@touch $@

$(VENV)/.recordings: requirements/recordings.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/recordings.txt
	@touch $@

$(VENV)/.cluster: requirements/cluster.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/cluster.txt
	@touch $@

$(VENV)/.mutants: requirements/mutants.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/mutants.txt
	@touch $@

setup: $(VENV)/.run  ## a virtual environment with what a worker needs
local-hub: $(VENV)/.local-hub  ## the same with what the local Hub and the demo need
dev: $(VENV)/.dev  ## all of it, and what a developer needs

validator: setup $(VENV)/.validator  ## the BIDS validator, for runs with validate_bids (92 MB)

cluster: setup $(VENV)/.cluster  ## what a worker and a cluster's nodes need to work together (docs/cluster.md)

recordings: setup $(VENV)/.recordings  ## what reads the headers of FIF, EEGLAB, SNIRF and NWB recordings (260 MB)

demo: local-hub  ## the whole chain on this machine, in a browser; waits at the gate (SESSIONS=24 for a small cut)
	$(BIN)/python -m deployments.demo $(if $(SESSIONS),--sessions $(SESSIONS))

demo-once: local-hub  ## the same unattended: approves through the API, loads the result, exits 0 only if all of it held
	$(BIN)/python -m deployments.demo --once $(if $(SESSIONS),--sessions $(SESSIONS))

pictures: dev browser  ## the pictures of the README, from a cut of the demo: look at them before you commit them
	$(BIN)/python -m tests.pictures

# Debian's chromium or the user's own Chrome; a machine with neither gets Playwright's.
browser: dev
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || $(BIN)/playwright install chromium

PYTEST = $(BIN)/python -m pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder

# Bytecode is kept, also where the environment says otherwise: without it, each tester compiles every test anew, for some
# four seconds, and each server, worker and run that a test starts the code that it imports.
test-fast coverage test-sqlite test-postgresql: export PYTHONDONTWRITEBYTECODE =

# The tests that need no server (tests/lanes.py), with the plugins that they need.
FAST = -m "not server and not slow" --disable-plugin-autoload -p xdist -p timeout -p hypothesispytest

test-fast: dev  ## the tests that need no server, browser or database, in a minute; `make coverage`: and which lines they reach
	$(PYTEST) $(FAST)

coverage: dev
	$(PYTEST) $(FAST) -p pytest_cov --cov=flows --cov=tasks --cov=deployments --cov-branch --cov-report=term:skip-covered

# The end-to-end tests whose databases have to hold what runs do at the same time: gates, schedules, alerts. They are run
# once in `make test`, on PostgreSQL, as a lab's server has it, the others on SQLite, as a newcomer has it.
ON_POSTGRESQL ?= $(addprefix tests/end_to_end/test_,gate.py nights.py deploy.py)

test: test-sqlite test-postgresql  ## every test, with a real Prefect server, worker, Hub and browser for each of TESTERS processes

test-sqlite: dev validator browser  ## those whose Prefect server has its database in SQLite (ON_POSTGRESQL= for all)
	$(PYTEST) --ignore=tests/deployed $(addprefix --ignore=,$(ON_POSTGRESQL))

test-postgresql: dev validator browser  ## those on PostgreSQL (ON_POSTGRESQL=tests/end_to_end for all), and what compose.yaml starts
	@$(BIN)/python -m tests.postgres
	TEST_DATABASE=postgresql $(PYTEST) $(ON_POSTGRESQL) tests/deployed

fmt: dev  ## formats the code
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --quiet --fix-only $(SOURCES)

lint: dev  ## formatting and lint
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: dev  ## mypy, strict
	$(BIN)/mypy

deploy: setup  ## the work pool, the deployments and the automations, to the server that PREFECT_API_URL names
	$(BIN)/python -m deployments.deploy

worker: setup  ## works on what is due, and watches over the runs; HF_TOKEN and BIDS_PUSH_STAGING_ROOT in its environment
	$(BIN)/python -m deployments.worker

staging: setup  ## what is staged on this machine for which dataset, and which run's gate is open
	$(BIN)/python -m deployments.staging $(if $(ROOT),"$(ROOT)")

mutants: dev $(VENV)/.mutants  ## do the tests notice each small change of the code that deletes and decides? (MODULES="cleanup staging" for some; hours)
	$(BIN)/python -m tests.mutants $(MODULES)

corpus: dev  ## what bids-push makes of the real datasets in FOLDER=..., one line each; exits 1 if one with images is refused
	$(BIN)/python -m tests.corpus "$(FOLDER)"

hub-suites: dev  ## the public tests of huggingface_hub and datasets in FOLDER=... over the local Hub; exits 1 at a new failure
	$(BIN)/python -m tests.local_hub.suites "$(FOLDER)"

bench: dev  ## figures, one a line: name value unit
	$(BIN)/python -m benchmarks

requirements:  ## pins again, from pyproject.toml, and checks the pins (needs uv)
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml -o requirements/run.txt
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --extra dev -c requirements/run.txt pyproject.toml -o requirements/dev.txt
	$(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['local-hub'], sep='\n')" \
		| uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -c requirements/run.txt - -o requirements/local-hub.txt
	$(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['recordings'], sep='\n')" \
		| uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -c requirements/dev.txt - -o requirements/recordings.txt
	$(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['cluster'], sep='\n')" \
		| uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -c requirements/dev.txt - -o requirements/cluster.txt
	echo "bids-validator-deno>=3.0.2,<4" | uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate - -o requirements/validator.txt
	echo "mutmut>=3.8,<4" | uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -c requirements/dev.txt - -o requirements/mutants.txt
	$(PYTHON) -m tests.pins || { echo "The pins that worked: git checkout requirements" >&2; exit 1; }

pins:  ## do the pins install, and does their Prefect run schedules? (PINS=--newest: what pyproject.toml allows; needs uv)
	$(PYTHON) -m tests.pins $(PINS)

tag:  ## gives the version its tag, at the commit that raised its number (ALL=1: each version of the history)
	.ci/tag $(if $(ALL),--all)

soak: dev  ## SIGKILL at random instants, and other faults, in ROUNDS rounds; exits 1 on any loss
	$(BIN)/python -m soak --rounds $(ROUNDS)

soak-cluster: dev  ## pushes on a real SLURM (apt install slurm-wlm munge) in ROUNDS rounds, each with a loss; exits 1 on any harm
	$(BIN)/python -m soak.cluster --rounds $(ROUNDS)

year: dev  ## a year of nights on one dataset, each judged: NIGHTS=365, SEED=1 lives the same one again; exits 1 at a disagreement
	$(BIN)/python -m year --nights $(NIGHTS) --seed $(SEED)

clean:  ## the virtual environment and what the demo, the benchmarks and the tests made
	rm -rf $(VENV) .demo .bench .soak .year test-output .coverage
