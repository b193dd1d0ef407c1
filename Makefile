# `make demo` and `make test` need Python >= 3.11, make and git; everything else goes into .venv by itself.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
UV_VERSION = 0.13.9
BIN = .venv/bin
RUN_ENV = OMP_NUM_THREADS=1 RAY_DATA_USE_DATASOURCE_V2=0 RAY_AUTH_MODE=disabled RAY_worker_niceness=0 RAY_USAGE_STATS_ENABLED=0
# Two test processes, each with its own Ray and S3 server; files stay whole, so that what they share is made once.
SIDE_BY_SIDE = -n 2 --dist loadfile
# uv, unlike pip, leaves compiling to the first import. Where that may not write (PYTHONDONTWRITEBYTECODE, as in many
# images), every process of a run would compile torch, Ray and pandas anew: twice the time to start.
export UV_COMPILE_BYTECODE = 1
.DEFAULT_GOAL = help
.PHONY: help demo test test-fast nightly fuzz lint bench bench-train bench-scale bench-peers bench-engines lock docs-check sbom audit clean

help:  ## show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# uv, unlike pip, ignores PIP_FIND_LINKS: a CPU-only torch lying there would not fit the pinned torchvision.
.venv/installed: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: needed Python >= 3.11 on the PATH, found none" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: needed Python >= 3.11, got $$($(PYTHON) --version); set PYTHON=" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

demo: .venv/installed  ## draw a small archive, train on it, score it, query the result (under 5 minutes)
	$(RUN_ENV) $(BIN)/python -m jobs.demo

test: .venv/installed lint  ## lint, type-check and run the tests (about 35 minutes on 2 cores)
	$(RUN_ENV) $(BIN)/python -m pytest $(SIDE_BY_SIDE) --durations=25

test-fast: .venv/installed  ## the tests without Ray, S3 and long computations (about 3 minutes on 2 cores)
	$(RUN_ENV) $(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not ray and not s3 and not docs and not nightly"

nightly: .venv/installed fuzz  ## the slow tests: kills, a minute of throttling, new examples of every law (40 minutes)
	$(RUN_ENV) $(BIN)/python -m pytest -m "hypothesis and not ray and not s3 and not docs" --hypothesis-profile "new examples"
	$(RUN_ENV) $(BIN)/python -m pytest -m nightly --timeout 1200

fuzz: .venv/installed  ## 20,000 mutated image files against the decoder (some minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.fuzzing --mutations 20000

lint: .venv/installed  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed  ## measure against DifferNet's own procedure and a bare loop -> build/bench-*.json
	$(RUN_ENV) $(BIN)/python -m jobs.benchmark network
	$(RUN_ENV) $(BIN)/python -m jobs.benchmark fidelity
	$(RUN_ENV) $(BIN)/python -m jobs.benchmark job

bench-train: .venv/installed  ## measure training against DifferNet's own loop -> build/bench-train.json
	$(RUN_ENV) $(BIN)/python -m jobs.benchmark training

bench-scale: .venv/installed  ## measure the cost per row up to ten million rows -> build/bench-scale.json
	$(RUN_ENV) $(BIN)/python -m jobs.benchmark scale

.venv-peers/installed: infra/requirements-peers.txt pyproject.toml .venv/installed
	$(BIN)/python -m venv --without-pip .venv-peers
	$(BIN)/uv pip install --quiet --python .venv-peers/bin/python --require-hashes -r infra/requirements-peers.txt
	$(BIN)/uv pip install --quiet --python .venv-peers/bin/python --no-deps -e .
	@touch $@

# Labelled photos and AlexNet's weights, if they lie beside the checkout; without them photos are drawn, for speed alone.
SHARED = $(abspath $(wildcard ../shared))
PEERS_DATA = $(if $(SHARED),--data $(SHARED)/data/mtd$(,)$(SHARED)/data/elpv$(,)$(SHARED)/data/cplid_win --weights $(SHARED)/weights/bvlc_alexnet_features.safetensors)
PEERS_ARGS ?=
, = ,

bench-peers: .venv-peers/installed  ## measure against anomalib's detectors -> build/bench-peers.json
	$(RUN_ENV) .venv-peers/bin/python -m jobs.benchmark peers $(PEERS_DATA) $(PEERS_ARGS)

.venv-engines/installed: infra/requirements-engines.txt pyproject.toml .venv/installed
	$(BIN)/python -m venv --without-pip .venv-engines
	$(BIN)/uv pip install --quiet --python .venv-engines/bin/python --require-hashes -r infra/requirements-engines.txt
	$(BIN)/uv pip install --quiet --python .venv-engines/bin/python --no-deps -e .
	@touch $@

ENGINES_ARGS ?=

bench-engines: .venv-engines/installed  ## measure against Ray Data, Daft and a DataLoader -> build/bench-engines.json
	$(RUN_ENV) .venv-engines/bin/python -m jobs.benchmark engines $(ENGINES_ARGS)

docs-check: .venv/installed  ## run the README's commands, the demo and `ray job submit`
	$(RUN_ENV) $(BIN)/python -m pytest $(SIDE_BY_SIDE) --durations=10 -m docs

lock: .venv/installed  ## resolve pyproject.toml into requirements.txt again
	$(BIN)/uv pip compile --quiet pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header -o requirements.txt
	$(BIN)/uv pip compile --quiet pyproject.toml --extra peers --universal --python-version 3.11 --generate-hashes --no-header --constraints requirements.txt -o infra/requirements-peers.txt
	$(BIN)/uv pip compile --quiet pyproject.toml --extra engines --universal --python-version 3.11 --generate-hashes --no-header -o infra/requirements-engines.txt
	$(BIN)/uv pip compile --quiet --group pyproject.toml:audit --universal --python-version 3.11 --generate-hashes --no-header -o infra/requirements-audit.txt

# What the image holds, with its hashes, for the two targets below.
build/requirements-image.txt: requirements.txt pyproject.toml infra/image-install.sh .venv/installed
	@mkdir -p build
	PATH="$(abspath $(BIN)):$$PATH" infra/image-install.sh list > $@

.venv-audit/installed: infra/requirements-audit.txt .venv/installed
	$(BIN)/python -m venv --without-pip .venv-audit
	$(BIN)/uv pip install --quiet --python .venv-audit/bin/python --require-hashes -r infra/requirements-audit.txt
	@touch $@

sbom: build/requirements-image.txt .venv-audit/installed  ## write what the image holds as CycloneDX -> build/sbom.json
	.venv-audit/bin/cyclonedx-py requirements --output-format JSON --output-file build/sbom.json $<

audit: build/requirements-image.txt .venv-audit/installed  ## ask PyPI's advisories about every package of the image (needs the internet)
	PATH="$(abspath .venv-audit/bin):$$PATH" infra/audit.sh $<

clean:  ## remove what was built
	rm -rf .venv .venv-peers .venv-engines .venv-audit build
