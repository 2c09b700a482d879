# What a person or CI does with this tree. Each target sets up .venv by itself and is quick when nothing changed.
#
#   make run                       the demo: a small site and an edge in front of it
#   make run ORIGIN=http://h:port  an edge in front of that origin
#   make test                      the whole test suite         (ARGS="tests/http -x" for part of it, ARGS="-n 0 --pdb")
#   make test-faults               faults and floods at full size, against real processes
#   make lint                      ruff and mypy
#   make bench                     the benchmark beside nginx, Varnish and HAProxy   (ARGS="--help")
#   make bench-disk                what the disk tier promises of itself            (ARGS="--help")
#   make bench-purge               what the purge coordinator promises of itself   (ARGS="--help")
#   make bench-purge-edge          what purging costs an edge                       (ARGS="--help")
#   make bench-dns                 the DNS benchmark beside gdnsd, Knot and PowerDNS (ARGS="--help")
#   make conformance               the public HTTP cache tests, against a fresh edge (ARGS="--only ID")
#   make load PROFILE=steady       a load test that asserts a promise, and leaves a report   (ARGS="--users 100", WEB=1)
#   make soak DURATION=1800        half an hour of everything at once: does anything grow, do the counters agree?
#   make docs                      rewrite the pages made from the code
#   make clean                     remove everything that was made

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check --quiet
ORIGIN ?=
ARGS   ?=
PROFILE ?= steady
WEB    ?=
DURATION ?= 1800
# Tests side by side: they wait more than they work.
JOBS ?= $(shell expr $$(nproc) + 2)

SOURCES := $(wildcard ext/*.pyx ext/*.h ext/*.pxi edgecache/_native/*.pxd) setup.py

.PHONY: run test test-faults lint bench bench-disk bench-purge bench-purge-edge bench-dns conformance load soak docs clean prerequisites
.DELETE_ON_ERROR:

run: $(VENV)/.built
ifeq ($(ORIGIN),)
	@exec $(BIN)/edgecache demo
else
	@echo "edgecache in front of $(ORIGIN)"
	@echo
	@echo "  Open        http://127.0.0.1:8080/"
	@echo
	@echo "To try in another terminal:"
	@echo
	@echo "  curl -so /dev/null -D - http://127.0.0.1:8080/ | grep -i cache-status    # twice: what the edge did, and why"
	@echo "  $(BIN)/edgecache explain http://127.0.0.1:8080/"
	@echo "  $(BIN)/edgecache purge --all"
	@echo "  $(BIN)/edgecache stats --watch"
	@echo
	@echo "Ctrl-C stops it."
	@echo
	@exec $(BIN)/edgecache serve --origin "$(ORIGIN)"
endif

# Kills, freezes, starves and floods real processes, at full size: some minutes.
test-faults: $(VENV)/.dev
	EDGECACHE_LONG_TESTS=1 $(BIN)/python -m pytest tests/fault --timeout 400 $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.dev
	@echo "Building what an installation gets"
	@$(BIN)/python setup.py -q build --build-lib build/installed
	EDGECACHE_TREE=$(CURDIR)/build/installed $(BIN)/python -m loadtests.bench $(ARGS)

bench-disk: $(VENV)/.dev
	$(BIN)/python -m loadtests.bench.disk $(ARGS)

bench-purge: $(VENV)/.dev
	$(BIN)/python -m loadtests.bench.purge $(ARGS)

bench-purge-edge: $(VENV)/.dev
	$(BIN)/python -m loadtests.bench.purge_edge $(ARGS)

bench-dns: $(VENV)/.dev
	$(BIN)/python -m loadtests.bench.dns $(ARGS)

conformance: $(VENV)/.dev
	$(BIN)/python -m tests.conformance.suite $(ARGS)

load: $(VENV)/.load
	@$(BIN)/python -m loadtests $(PROFILE) $(if $(WEB),--web) $(ARGS)

soak: $(VENV)/.load
	@nice $(BIN)/python -m loadtests soak --seconds $(DURATION) $(ARGS)

docs: $(VENV)/.built
	$(BIN)/python -m edgecache.config.reference docs/configuration.md

clean:
	rm -rf $(VENV) build dist *.egg-info edgecache/_native/*.so

# One line that names everything missing, before any compiler is asked.
prerequisites:
	@missing=; \
	command -v $(PYTHON) >/dev/null || { echo "edgecache needs CPython 3.11 or newer: apt-get install python3"; exit 1; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "edgecache needs CPython 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.11 …"; exit 1; }; \
	$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	$(PYTHON) -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' \
	  || missing="$$missing python3-dev"; \
	command -v $${CC:-cc} >/dev/null || missing="$$missing gcc libc6-dev"; \
	[ -z "$$missing" ] || { echo "edgecache needs more to be built; install it: apt-get install$$missing"; exit 1; }

$(VENV)/.venv: | prerequisites
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.deps: pyproject.toml constraints.txt $(VENV)/.venv
	@echo "Installing what edgecache needs"
	@$(PIP) install --constraint constraints.txt "setuptools>=77" "Cython>=3.1" wheel
	@$(call install-needs,)
	@touch $@

# Compiles everything, like every installation, and leaves nothing to compile for .built.
$(VENV)/.installed: $(VENV)/.deps
	@echo "Compiling the hot paths"
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.built: $(SOURCES) $(VENV)/.installed
	@[ -z "$$(find $(SOURCES) -newer $(VENV)/.installed)" ] || $(BIN)/python setup.py -q build_ext --inplace
	@touch $@

$(VENV)/.dev: $(VENV)/.built
	@echo "Installing what tests and checks need"
	@$(call install-needs,dev load)
	@touch $@

$(VENV)/.load: $(VENV)/.built
	@echo "Installing what load tests need"
	@$(call install-needs,load)
	@touch $@

$(VENV)/.clients: $(VENV)/.built
	@echo "Installing clients of other products, which tests run against an edge"
	@$(call install-needs,clients)
	@touch $@

# What pyproject.toml names for these extras (none: what edgecache itself needs). Installing the extras of the tree itself
# would compile it again each time.
define install-needs
$(BIN)/python -c 'import sys, tomllib; \
  project = tomllib.load(open("pyproject.toml", "rb"))["project"]; extras = project["optional-dependencies"]; \
  print(*(each for name in sys.argv[1:] for each in extras[name]) if sys.argv[1:] else project["dependencies"], sep="\n")' \
  $(1) >$(VENV)/needs && $(PIP) install --constraint constraints.txt --requirement $(VENV)/needs
endef
