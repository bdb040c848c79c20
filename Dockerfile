# syntax=docker/dockerfile:1
# The image of one service: docker build --build-arg SERVICE=billing -t gatefold-billing:0.1.0 .
# Which package index, proxy or certificate authority to use is the builder's business: --secret id=pip,src=pip.conf.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# Stubs from the contracts; the compiler stays behind in this stage.
FROM ${PYTHON_IMAGE} AS stubs
WORKDIR /build
COPY requirements-dev.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv /opt/compiler && \
    /opt/compiler/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
COPY infra/protos.py infra/protos.py
COPY protos protos
RUN /opt/compiler/bin/python infra/protos.py
COPY infra/breached.py infra/breached.py
RUN /opt/compiler/bin/python infra/breached.py build/breached_passwords.bin

FROM ${PYTHON_IMAGE} AS packages
WORKDIR /build
COPY requirements.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /opt/gatefold && \
    pip --python /opt/gatefold install \
        --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r requirements.lock

FROM ${PYTHON_IMAGE}
ARG SERVICE
RUN test -n "${SERVICE}" && useradd --system --uid 65532 --user-group --no-create-home --shell /usr/sbin/nologin gatefold
WORKDIR /app
COPY --from=packages /opt/gatefold /opt/gatefold
COPY --from=stubs /build/gen gen
COPY --from=stubs /build/build build
COPY VERSION ./
COPY docs/problems.md docs/problems.md
COPY libs libs
COPY services/__init__.py services/__init__.py
COPY services/${SERVICE} services/${SERVICE}
ENV PATH=/opt/gatefold/bin:$PATH \
    PYTHONPATH=/app:/app/gen \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GATEFOLD_SERVICE=${SERVICE}
# Nothing is written when it runs, so that the root file system may be read-only: bytecode is made here.
RUN python -m compileall -q -j 0 /app && python -c "import importlib; importlib.import_module('services.${SERVICE}.__main__')"
USER 65532:65532
# The shell gives its place to Python, which therefore gets the signals; arguments are the service's commands.
ENTRYPOINT ["/bin/sh", "-c", "exec python -m services.${GATEFOLD_SERVICE} \"$@\"", "gatefold"]
