# make demo, make test: a fresh clone needs python3 (3.10 or newer) and make, nothing else. `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal
INSTALLED := $(VENV)/installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-versions coverage check fuzz bench proto docs site tutorials man dist clean .venv

help: ## this list
	@sed -n 's/^\([.a-z-]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(INSTALLED) ## train, score, stop and resume LeNet on scikit-learn's digits
	@$(BIN)/python scripts/demo.py

test: $(INSTALLED) ## the whole suite but for the slow tests
	@$(PYTEST) $(PYTEST_FLAGS)

test-all: $(INSTALLED) ## the whole suite, its made-up examples drawn anew
	@$(PYTEST) -m "" --hypothesis-profile=default

test-versions: $(INSTALLED) ## files and nets with the oldest and newest dependencies, on each Python that is here
	@$(BIN)/python -m scripts.versions "$(PYTHONS)" "$(TESTS)"

coverage: $(INSTALLED) ## as test, and the share of lines that the tests reach
	@$(MAKE) --no-print-directory test PYTEST_FLAGS="--cov --cov-report= --cov-fail-under=80"

check: $(INSTALLED) ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fuzz: $(INSTALLED) ## 12,000 damaged files through all that reads files; some minutes
	@$(BIN)/python -m scripts.fuzz

bench: $(INSTALLED) ## speed, beside a hand-written PyTorch loop of the same nets
	@$(BIN)/python scripts/bench.py
	@$(BIN)/python scripts/bench_layers.py
	@$(BIN)/python -m scripts.bench_solvers

proto: $(INSTALLED) ## caffe_pb2 and fork_numbers made anew of caffe.proto and the forks' .proto files
	@$(BIN)/python -m scripts.generate_schema

docs: $(INSTALLED) ## docs/layers.md and docs/models.md made anew; what the documentation says, tried out
	@$(BIN)/python -m scripts.layer_catalogue
	@$(BIN)/python -m scripts.model_table
	@$(BIN)/python -m pytest tests/test_docs.py tests/test_layer_catalogue.py tests/models/test_model_table.py

site: $(INSTALLED) ## the documentation as a site, build/site/index.html; a link that leads nowhere ends it
	@$(BIN)/python -m sphinx -c docs/site -W --keep-going -q -d build/doctrees . build/site
	@echo "Wrote build/site/index.html"

tutorials: $(INSTALLED) ## the tutorials run, in the folder tutorial, and their pictures made anew
	@rm -rf tutorial
	@for page in docs/tutorials/0*.md docs/augmentation.md docs/learning-rates.md docs/pictures.md docs/read-a-log.md \
	  docs/segmentation.md; do \
	  $(BIN)/python scripts/tutorial.py $$page || exit 1; done
	@for picture in docs/tutorials/pictures/* docs/pictures/*; do cp tutorial/$${picture##*/} $$picture; done

man: $(INSTALLED) ## the manual pages, made of the help, in the folder man
	@$(BIN)/python -m scripts.man_pages man

dist: $(INSTALLED) ## the sdist and the wheel, checked, and installed in new environments of each Python that is here
	@$(BIN)/python -m scripts.dist "$(PYTHONS)"

clean: ## remove what was made here but for .venv, databases and snapshots
	rm -rf demo tutorial build dist man *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv: $(INSTALLED) ## the environment: caffecli from here, with what its tests need

$(INSTALLED): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "caffecli needs Python 3.10 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); try make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "$(PYTHON) cannot make environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
