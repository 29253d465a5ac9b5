# The image that every pipeline step runs in: lrf and what requirements.lock pins, non-root.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /build
RUN python -m venv /opt/lrf
COPY requirements.lock ./
RUN /opt/lrf/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY lrf_core lrf_core
COPY components components
COPY pipelines pipelines
RUN /opt/lrf/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="lrf" \
      org.opencontainers.image.description="Low-rank compression of Keras CNNs" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/lrf /opt/lrf
ENV PATH=/opt/lrf/bin:$PATH \
    HOME=/tmp \
    KERAS_HOME=/tmp/keras \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=3
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["lrf"]
