# `make help` lists what there is. Everything lives in .venv and var; `make clean` removes both.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install lock demo test check parity smollm eval-proofs schemathesis test-faults test-browser chromium screenshots clean

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TORCH := $(shell sed -n 's/^torch==//p' requirements-torch.lock)
# Which interpreter makes the environment: the first of these that exists, 3.11 or later.
SYSTEM_PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
PIP := $(PYTHON) -m pip --disable-pip-version-check
# Two processes suit two cores: the tests start processes of their own.
TEST_PROCESSES ?= 2
PYTEST := OMP_NUM_THREADS=1 $(PYTHON) -m pytest

help: ## what there is to make
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

install: $(STAMP) ## .venv with everything in it, and the console script .venv/bin/lco

# torch goes first and by itself: the lock cannot name one hash for CPU and CUDA builds. Without a GPU the CPU build is taken where an
# index offers one (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS name further ones); otherwise pip's choice, which is a CUDA build of several GB.
$(STAMP): requirements.lock requirements-torch.lock pyproject.toml Makefile
	@test -n "$(SYSTEM_PYTHON)" || { echo "make: no Python found; install Python 3.11 or set SYSTEM_PYTHON" >&2; exit 1; }
	@"$(SYSTEM_PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "make: $(SYSTEM_PYTHON) is older than Python 3.11; set SYSTEM_PYTHON" >&2; exit 1; }
	test -x $(PYTHON) || "$(SYSTEM_PYTHON)" -m venv $(VENV)
	@if $(PYTHON) -c 'from importlib.metadata import version; assert version("torch").split("+")[0] == "$(TORCH)"' 2>/dev/null; then \
		echo "torch $(TORCH) is installed"; \
	elif [ -e /dev/nvidia0 ] || [ -e /dev/nvidiactl ]; then \
		echo "installing torch $(TORCH) with CUDA"; \
		$(PIP) install --quiet 'torch==$(TORCH),!=$(TORCH)+cpu' || $(PIP) install --quiet 'torch==$(TORCH)'; \
	else \
		echo "installing torch $(TORCH), the CPU build where there is one"; \
		$(PIP) install --quiet 'torch==$(TORCH)+cpu' 2>/dev/null || $(PIP) install --quiet 'torch==$(TORCH)'; \
	fi
	$(PIP) install --quiet --no-deps --require-hashes -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

lock: ## requirements.lock anew (needs uv, and an index or UV_FIND_LINKS with torch's CPU build)
	uv pip compile pyproject.toml --extra dev --generate-hashes --python-version 3.11 --no-annotate \
		--no-emit-package torch --constraint <(echo 'torch==$(TORCH)+cpu') \
		--custom-compile-command 'make lock' --quiet --output-file requirements.lock

demo: $(STAMP) ## the main job, followed live; DETACH=1 stops the platform at the end, SERVICES=1 plays it through PostgreSQL, Redis, Celery
	@$(PYTHON) -m api.demo $(if $(filter-out 0,$(DETACH)),--detach) $(if $(filter-out 0,$(SERVICES)),--services)

test: $(STAMP) chromium ## the whole test suite
	$(PYTEST) -n $(TEST_PROCESSES) --dist loadfile

check: $(STAMP) ## ruff, mypy --strict, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# An environment of its own, on top of .venv's torch and transformers: TRL pulls in packages that the project does not need.
PARITY := var/parity-venv
TRL := 1.12.0
PARITY_PACKAGES := trl==$(TRL) requests pandas datasets pyarrow multiprocess dill xxhash fsspec

parity: $(STAMP) ## the frozen numbers of TRL made anew and compared
	test -x $(PARITY)/bin/python || $(PYTHON) -m venv $(PARITY)
	$(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(PARITY)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth"
	$(PARITY)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps $(PARITY_PACKAGES)
	PYTHONPATH=. TRL_EXPERIMENTAL_SILENCE=1 $(PARITY)/bin/python tests/lco/parity/make_parity.py $(PARITY)/trl-$(TRL).json
	$(PYTHON) tests/lco/parity/compare.py tests/lco/parity/trl-$(TRL).json $(PARITY)/trl-$(TRL).json
	$(PYTEST) -n 0 tests/lco/parity

smollm: $(STAMP) ## a real pretrained model in short form; ARGS='--long --gsm8k DIR' plays the long one
	@$(PYTHON) -m api.smollm $(ARGS)

eval-proofs: $(STAMP) ## every proof of the evaluation, the long kill sweep too; -rs names those that miss shared data (LCO_SHARED_DATA)
	$(PYTEST) -m "not gpu" -n 0 -rs --timeout 3600 tests/evaluation tests/lco/grading tests/lco/test_qa_feedback.py

schemathesis: $(STAMP) ## generated requests to every operation, other ones than in the suite (long); SCHEMATHESIS_SEED=N repeats a run
	SCHEMATHESIS_EXAMPLES=$${SCHEMATHESIS_EXAMPLES:-200} SCHEMATHESIS_SEED=$${SCHEMATHESIS_SEED:-$$RANDOM} $(PYTEST) -n $(TEST_PROCESSES) --dist load --timeout 3600 tests/api/test_schemathesis.py

test-faults: $(STAMP) ## kill -9 of trainer, supervisor and API at three stages of the demo (long)
	$(PYTEST) -m faults -n 0 --timeout 3600

test-browser: $(STAMP) chromium ## the dashboard in a real Chromium
	$(PYTEST) -n 0 tests/dashboard/test_browser.py tests/dashboard/test_walk.py

APT := apt-get install --yes --no-install-recommends chromium fonts-dejavu-core
# Where it cannot be installed, one test of the suite fails and says what to do.
chromium: ## the browser of those tests: found in PATH, else Debian's, for root or where CI=true
	@if command -v chromium chromium-browser google-chrome > /dev/null; then exit 0; fi; \
	if ! command -v apt-get > /dev/null; then echo "make: no Chromium in PATH and no apt-get: install one yourself" >&2; \
	elif [ "$$(id -u)" = 0 ]; then { apt-get update -qq && $(APT); } || echo "make: apt-get could not install Chromium" >&2; \
	elif [ "$${CI:-}" = true ]; then { sudo -n apt-get update -qq && sudo -n $(APT); } || echo "make: sudo apt-get could not install Chromium" >&2; \
	else echo "make: no Chromium in PATH; once: sudo apt-get install chromium" >&2; fi

screenshots: $(STAMP) chromium ## docs/images/*.png anew, from seeded data
	PYTHONPATH=. OMP_NUM_THREADS=1 $(PYTHON) -m tests.dashboard.screenshots docs/images

clean: ## removes .venv, var and caches
	@# As root, PostgreSQL's files lie outside var.
	test ! -x $(PYTHON) || $(PYTHON) -c 'from pathlib import Path; from api.local_services import forget; forget(Path("var/demo-services/services"))' || true
	rm -rf $(VENV) var demo-report demo-report.json dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
