# The command line, every pipeline step and the controller: one image, see docs/image.md.
ARG BASE_IMAGE=python:3.11-slim

# TensorFlow and what it needs: two thirds of the image, and seldom new, so a layer of its own.
FROM ${BASE_IMAGE} AS tensorflow
# tensorflow-cpu, or tensorflow for GPUs (with CUDA); each has a lock.
ARG TF_PACKAGE=tensorflow-cpu
# For `strip`, in this stage only; its version is that of the base image's Debian.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends binutils \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/lrf/lib/python3.11/site-packages
COPY requirements-${TF_PACKAGE}.lock /build/
ENV INSTALL="python3 -m pip --python /opt/lrf/bin/python install --no-cache-dir --no-compile --no-deps --no-build-isolation"
# Headers and clang are for building operations, symbol tables for debuggers. The import leaves byte
# code of what is imported, and of nothing else. The secret is pip's configuration, for a mirror.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/lrf \
 && ${INSTALL} --require-hashes --requirement "/build/requirements-${TF_PACKAGE}.lock" \
 && rm -rf tensorflow/include clang \
 && find tensorflow h5py -name '*.so*' -type f -exec strip --strip-unneeded {} + \
 && /opt/lrf/bin/python -c 'import keras, tensorflow.lite'

# All other packages; pip sees which ones are there. TensorFlow itself may be another build than the
# lock's, and is left out.
FROM tensorflow AS packages
COPY requirements.lock /build/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    sed '/^tensorflow-cpu==/,/[^\\]$/d' /build/requirements.lock > /build/packages.lock \
 && ${INSTALL} --prefix=/packages --require-hashes --requirement /build/packages.lock
WORKDIR /packages/lib/python3.11/site-packages
# Left out: Arrow Flight, libraries that are there three times, LiteRT's GPU and compiled-model parts,
# tests, data, sources of Cython. Byte code is kept of what a step imports.
RUN rm -rf pyarrow/include pyarrow/tests pyarrow/*flight* \
      pyarrow/libarrow_python*.so pyarrow/libarrow_python*.so.*.* \
      ai_edge_litert/libLiteRt*.so ai_edge_litert/tools ai_edge_litert/vendors \
      Crypto/SelfTest tensorly/datasets/data \
 && find scipy tensorly -name tests -type d -prune -exec rm -rf {} + \
 && find . -name '*.px[di]' -delete -o -name '*.pyx' -delete \
 && find . -name '*.libs' -prune -o -name '*.so*' -type f -exec strip --strip-unneeded {} + \
 && PYTHONPATH=. _KFP_RUNTIME=true /opt/lrf/bin/python -c 'import ai_edge_litert.interpreter, \
      cyclonedx.output.json, jinja2, kfp.dsl.executor_main, minio, PIL.Image, prometheus_client, \
      pyarrow.parquet, rich.progress, scipy.optimize, scipy.special, t3f, tenacity, typer'

# lrf itself.
FROM packages AS code
WORKDIR /build
COPY pyproject.toml README.md ./
COPY lrf_core lrf_core
COPY components components
COPY pipelines pipelines
RUN PYTHONPATH=/packages/lib/python3.11/site-packages ${INSTALL} --compile --no-index --prefix=/code .

FROM ${BASE_IMAGE} AS lrf
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lrf" \
      org.opencontainers.image.description="Low-rank compression of Keras CNNs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=tensorflow /opt/lrf /opt/lrf
COPY --from=packages /packages /opt/lrf
COPY --from=code /code /opt/lrf
# Only /tmp has to be writable. The user has no entry in /etc/passwd, so that its name is given here.
ENV PATH=/opt/lrf/bin:$PATH \
    HOME=/tmp \
    USER=lrf \
    KERAS_HOME=/tmp/keras \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=3
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["lrf"]

# `--target controller`, for where no Kubernetes probes it: the same layers, checked for their health.
FROM lrf AS controller
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
CMD ["controller", "--config", "/etc/lrf/controller.yaml"]

# What is built when no target is named: a step or a command ends by itself, and has no health.
FROM lrf
