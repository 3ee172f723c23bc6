# `make serve` and `make test` are the two commands of the README; the rest is for who works on landmoe.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
PIP := -m pip --disable-pip-version-check --quiet
# Modules are compiled when they are first imported: most of them never are.
INSTALL := $(PIP) install --no-compile

# The kernels want a C compiler. Where the machine has none, one is borrowed from PyPI for the moment.
ANY_COMPILER = command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null
define install-landmoe
$(ANY_COMPILER) || $(1) $(INSTALL) --no-deps --require-hashes -r locks/compiler.txt
$(1) $(INSTALL) --no-deps --no-build-isolation -e .
$(ANY_COMPILER) || $(1) $(PIP) uninstall --yes ziglang
endef

.PHONY: serve install kernels test check format docs bench lock clean

serve: .venv-serve/.ready
	.venv-serve/bin/landmoe serve --host $(HOST) --port $(PORT)

# The serving environment has no torch. The locks list every package, hence --no-deps.
.venv-serve/.ready: pyproject.toml locks/serve-cpu.txt
	@echo "Preparing .venv-serve (once) ..."
	$(PYTHON) -m venv --clear .venv-serve
	.venv-serve/bin/python $(INSTALL) --no-deps -r locks/serve-cpu.txt
	$(call install-landmoe,.venv-serve/bin/python)
	touch $@

install: .venv/.ready

# torch comes from a file of its own, unhashed: pip takes whichever build (CPU or CUDA) it is pointed at.
.venv/.ready: pyproject.toml locks/dev.txt locks/torch.txt
	@echo "Preparing .venv (once) ..."
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python $(INSTALL) --no-deps -r locks/dev.txt
	.venv/bin/python $(INSTALL) -r locks/torch.txt
	$(call install-landmoe,.venv/bin/python)
	touch $@

# Two files of tests at a time: most wait for servers half of their time. Training in processes of its own: not
# beside the runtimes and threads that the service's tests have loaded.
AT_A_TIME := -n 2 --dist loadfile
test: install
	.venv/bin/python -m pytest $(AT_A_TIME) tests --ignore=tests/training -m "not alone"
	.venv/bin/python -m pytest tests/service -m alone
	.venv/bin/python -m pytest $(AT_A_TIME) tests/training

check: install
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

format: install
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

# Again, after a change of their sources.
kernels: install
	.venv/bin/python hatch_build.py

# What follows from the settings class: their tables in docs/, .env.example and docker/.
docs: install
	.venv/bin/python docs/generate.py

# About a quarter of an hour on an idle machine. SET is a packed set, for the loader; without one it is left out.
RECORDS := docs/benchmarks
bench: install
	.venv/bin/landmoe bench engine --json $(RECORDS)/engine.json
	.venv/bin/landmoe bench decode --json $(RECORDS)/decode.json
	.venv/bin/landmoe bench service --json $(RECORDS)/service.json
	.venv/bin/landmoe bench growth --json $(RECORDS)/growth.json
	.venv/bin/landmoe-train bench step --json $(RECORDS)/step.json
	$(if $(SET),.venv/bin/landmoe-train bench loader $(SET) --json $(RECORDS)/loader.json)
	.venv/bin/python docs/performance.py

# Needs uv, and torch's CPU build in reach (UV_FIND_LINKS or UV_INDEX): the CUDA build would put its own
# packages into the lock. No index host is written into the files, so they install from any mirror.
COMPILE = uv pip compile pyproject.toml locks/build.in --override locks/torch-cpu.override --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet
lock:
	$(COMPILE) --extra cpu -o locks/serve-cpu.txt
	$(COMPILE) --extra gpu -o locks/serve-gpu.txt
	$(COMPILE) --extra cpu --extra train --no-emit-package torch -o locks/train.txt
	$(COMPILE) --extra cpu --extra openvino --extra train --extra otel --extra dev --no-emit-package torch -o locks/dev.txt
	uv pip compile locks/compiler.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-header --no-annotate --quiet -o locks/compiler.txt

clean:
	rm -rf .venv .venv-serve build dist
