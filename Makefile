# `make demo` and `make test` set everything up by themselves. To choose the interpreter:
# `make venv PYTHON=/path/to/python`.

VENV ?= .venv
PYTHON ?=
# Run as modules: the scripts in bin/ name their interpreter by its full path, which is wrong once
# the folder has been moved.
RUN := $(VENV)/bin/python -m
STAMP := $(VENV)/.installed

# The stamp says that an installation was finished, not that it still works: the system's Python may
# have gone since, or the folder been moved. Asked without importing anything.
WORKS = import importlib.util, os, sys; spec = importlib.util.find_spec("lmk"); \
	sys.exit(not (spec and os.path.samefile(os.path.dirname(spec.origin), ".")))
ifneq ($(wildcard $(STAMP)),)
ifneq ($(shell $(VENV)/bin/python -c '$(WORKS)' 2>/dev/null && echo works),works)
$(STAMP): again
endif
endif

# Of the campaigns: make fuzz MINUTES=20, make kill TIMES=100; another SEED draws other cases.
MINUTES ?= 20
TIMES ?= 100
SEED ?= 0

.PHONY: help venv demo test explore fuzz kill lint tables clean again

help:
	@echo 'make demo   the whole chain on an embedded example, without any download of data'
	@echo 'make test   the tests; make test ARGS="-k fold" for some of them'
	@echo 'make lint   ruff and mypy'
	@echo 'make tables  the tables of README, from zoo/zoo.json and benchmarks/results'
	@echo 'make explore  new examples for the tests that draw theirs, in random order'
	@echo 'make fuzz     damaged files of every kind; MINUTES=20 SEED=0'
	@echo 'make kill     signals at random moments, then the bytes compared; TIMES=100 SEED=0'
	@echo 'make venv   only the set-up of $(VENV), which all of these do first'
	@echo 'make clean  remove caches and build products; $(VENV) and runs/ stay'

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@if ! $(RUN) pip --version >/dev/null 2>&1; then \
	    for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	        "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	            2>/dev/null && found=$$python && break; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo 'make: no Python 3.11 or newer that has venv; install one' \
	            '(Debian: apt install python3 python3-venv) or name it: make PYTHON=PATH' >&2; \
	        exit 1; \
	    fi; \
	    echo "$(VENV): new, with $$found"; \
	    "$$found" -m venv --clear $(VENV); \
	fi
	$(RUN) pip install --no-input --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(VENV)/bin/lmk demo --force

# In the order of their names: by default files with few tests, among them the longest, come last.
test: $(STAMP)
	$(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

explore: $(STAMP)
	$(RUN) pytest -m hypothesis --hypothesis-profile explore -p randomly $(ARGS)

fuzz: $(STAMP)
	$(VENV)/bin/python tests/campaigns/fuzz.py --minutes $(MINUTES) --seed $(SEED)

kill: $(STAMP)
	$(VENV)/bin/python tests/campaigns/kill.py --times $(TIMES) --seed $(SEED)

# mypy does not follow the import hook of an editable installation whose package is the repository's
# root, so it gets a folder in which that root is called lmk.
lint: $(STAMP)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	@mkdir -p $(VENV)/mypy && ln -sfn "$(CURDIR)" $(VENV)/mypy/lmk
	MYPYPATH=$(VENV)/mypy $(RUN) mypy -m lmk -m lmk.cli -m lmk.commands -p lmk.runtime -p lmk.export -p lmk.train -p lmk.benchmarks -p lmk.studio

tables: $(STAMP)
	$(RUN) lmk.benchmarks.readme

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
