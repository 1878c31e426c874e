# Each target installs what it needs into .venv. Requires Python 3.11 or newer, and make.
PYTHON ?= python3
BIN := .venv/bin
OUT := demo_out

.PHONY: demo test test-latest test-optimized test-parity test-long test-browser test-buckets test-wheel lint benchmark clean
.PHONY: docs docs-check

# A pretrained network on two photographs, then a network that is trained from scratch.
demo: .venv/demo
	mkdir -p $(OUT)
	photos=$$($(BIN)/python -c 'import skimage; print(skimage.data_dir)') && \
	$(BIN)/camjax explain $$photos/chelsea.png $$photos/coffee.png --out $(OUT)/photographs.png
	rm -rf $(OUT)/scenes
	$(BIN)/python -m experiments.scenes --out $(OUT)/scenes --data-dir $(OUT)/tensorflow_datasets

test: .venv/test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not parity and not long and not browser and not buckets"

# The tests with the newest versions that the registry has, in an environment of their own; PYTHON=python3.13 chooses
# Python's. What camjax and the experiments use of other libraries and is deprecated by now fails, with the warning.
# Checkpoints go from .venv to this environment and back, if .venv is there. TESTS names files to run; empty, all run.
DEPRECATED := DeprecationWarning PendingDeprecationWarning FutureWarning
test-latest: .venv-latest/bin/python
	.venv-latest/bin/python -m pip install -q -U --upgrade-strategy eager -e ".[test]"
	.venv-latest/bin/python -m pip list | grep -E "^(jax|jaxlib|flax|optax|orbax-checkpoint|grain|numpy) "
	CAMJAX_OTHER_PYTHON=$(abspath $(wildcard .venv/bin/python)) .venv-latest/bin/python -m pytest -n 2 --dist worksteal \
		-m "not parity and not long and not browser and not buckets" $(TESTS) \
		-o filterwarnings="$$(printf 'error::%s:(camjax|experiments)\n' $(DEPRECATED))"

# The tests of maps, layers and metrics again, with the optimized programs that users run. (Those of whole networks are
# compared with PyTorch by test-parity.) TESTS names files to run; empty, all run.
OPTIMIZED := $(patsubst %,tests/models/test_%.py,batchnorm conv identity layers pooling) \
	tests/attribution tests/metrics tests/evaluation tests/test_inference.py tests/test_components.py
test-optimized: .venv/test
	XLA_FLAGS= $(BIN)/python -m pytest -n 2 --dist worksteal -m "not parity and not long and not browser" \
		$(or $(TESTS),$(OPTIMIZED))

# Without XLA_FLAGS tests/conftest.py leaves out most of XLA's optimizations; with it empty, programs are those of users.
test-parity: .venv/peers .venv-prepare/ready
	XLA_FLAGS= $(BIN)/python -m pytest -n 2 --dist worksteal -m "parity and not long"

test-long: .venv/peers
	XLA_FLAGS= $(BIN)/python -m pytest -n 2 --dist worksteal -m "long and not buckets and not browser"

# The page of `camjax app` in Debian's Chromium, or in the browser that CAMJAX_BROWSER names. Without one, it says so.
test-browser: .venv/browser
	XLA_FLAGS= $(BIN)/python -m pytest -m browser -rs tests/browser/test_page.py

# Runs, evaluations and annotations at gs:// and s3:// addresses, against servers of both protocols on this machine.
test-buckets: .venv/buckets .venv-servers/ready
	$(BIN)/python -m pytest -m buckets tests/training/test_buckets.py

# The wheel and the sdist, installed in new environments outside of the repository; PYTHON=python3.13 chooses Python's.
test-wheel: .venv-wheel/ready
	CAMJAX_PYTHON=$$(command -v $(PYTHON)) .venv-wheel/bin/python -m pytest --noconftest tests/check_wheel.py

# The site, in build/site: pages, and notebooks, which are executed. Warnings are errors.
docs: .venv-docs/ready
	rm -rf build/site
	.venv-docs/bin/python -m sphinx -q -W --keep-going -E -j 2 -d build/site-doctrees docs build/site
	@echo "The site is at build/site/index.html"

# Its pages in a browser, as wide as a phone and as a screen. The pictures are in build/site-pictures.
docs-check: docs .venv/browser
	$(BIN)/python -m pytest -m browser -rs tests/browser/test_site.py

benchmark: .venv/peers
	$(BIN)/python -m benchmarks.cam_throughput

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck examples/*.sh examples/*.sbatch

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "camjax needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv

.venv-latest/bin/python:
	$(PYTHON) -m venv .venv-latest

.venv/demo: .venv/bin/python pyproject.toml requirements.txt
	$(BIN)/python -m pip install -q -c requirements.txt -e ".[experiments]"
	touch $@

.venv/test: .venv/bin/python pyproject.toml requirements.txt
	$(BIN)/python -m pip install -q -c requirements.txt -e ".[test]"
	touch $@

.venv/dev: .venv/test
	$(BIN)/python -m pip install -q -c requirements.txt -e ".[dev]"
	touch $@

.venv-docs/ready: .venv/bin/python pyproject.toml requirements.txt
	$(BIN)/python -m venv .venv-docs
	.venv-docs/bin/python -m pip install -q -c requirements.txt -e ".[docs]"
	touch $@

.venv/browser: .venv/test
	$(BIN)/python -m pip install -q -c requirements.txt -e ".[browser]"
	command -v chromium > /dev/null || command -v chromium-browser > /dev/null || test -n "$$CAMJAX_BROWSER" || \
		{ apt-get update -qq && apt-get install -y -qq chromium > /dev/null; } || \
		echo "Chromium could not be installed here: install it by your system, or set CAMJAX_BROWSER to a browser's path."
	touch $@

.venv/buckets: .venv/test
	$(BIN)/python -m pip install -q -c requirements.txt -e ".[buckets]"
	touch $@

# In their own environment, since s3fs and moto want different versions of AWS's client.
.venv-servers/ready: .venv/bin/python
	$(BIN)/python -m venv .venv-servers
	.venv-servers/bin/python -m pip install -q "moto[s3,server]" gcp-storage-emulator
	touch $@

.venv-wheel/ready: .venv/bin/python
	$(BIN)/python -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install -q build twine pytest pillow
	touch $@

# Other implementations to compare with; the module lists them and says why they are not an extra of the package.
.venv/peers: .venv/test benchmarks/peers.py
	$(BIN)/python -m benchmarks.peers
	touch $@

# What `camjax prepare` needs: TensorFlow, in its own environment, because reading must work without it.
.venv-prepare/ready: .venv/bin/python pyproject.toml requirements.txt
	$(BIN)/python -m venv .venv-prepare
	.venv-prepare/bin/python -m pip install -q -c requirements.txt -e ".[prepare]"
	touch $@

clean:
	rm -rf .venv .venv-docs .venv-latest .venv-prepare .venv-servers .venv-wheel
