# The sidecar. Needs nothing but its settings: it runs as any user, on a read-only root, and writes no file.
# --build-arg REQUIREMENTS=otel adds the packages of that extra; docker-compose.yml does so with `local`.
FROM python:3.12-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/extproc
ENV PATH=/opt/extproc/bin:$PATH

# Packages first: they change less often than the code, and no layer of theirs depends on it.
COPY requirements/ requirements/
ARG REQUIREMENTS=runtime
RUN pip install --only-binary :all: --no-deps --require-hashes -r requirements/$REQUIREMENTS.txt

# The wheel is built outside the venv that ships, with the setuptools that the development lock pins.
COPY pyproject.toml README.md LICENSE ./
COPY extproc/ extproc/
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements/dev.txt > build.txt \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --only-binary :all: --no-deps --require-hashes -r build.txt \
 && /opt/build/bin/pip wheel --no-build-isolation --no-deps --wheel-dir dist . \
 && pip install --no-deps --no-index dist/*.whl

FROM python:3.12-slim
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin extproc
COPY --from=build /opt/extproc /opt/extproc
ENV PATH=/opt/extproc/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001

# Both listen on 127.0.0.1 unless EXTPROC_LISTEN and EXTPROC_ADMIN say otherwise: a sidecar shares Envoy's network.
EXPOSE 50051 9902

# Without the proxy that HTTP_PROXY may name for Aim. Where EXTPROC_ADMIN moves the port, move the check too.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:9902/healthz', timeout=2)"]

# SIGTERM drains; give it drain_seconds and a little more (docker stop --time 35).
ENTRYPOINT ["extproc"]
CMD ["serve"]
