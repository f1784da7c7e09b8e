# The sidecar. It needs only its settings: it runs as any user and on a read-only root, and writes no file.
# --build-arg REQUIREMENTS=otel adds the packages of that extra; docker-compose.yml adds those of `local`.
# The digest is that of the tag for all platforms. `make pin-images` and Dependabot update it.
FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/extproc
ENV PATH=/opt/extproc/bin:$PATH

# Packages first: they change less often than the code, so that their layers can be cached.
COPY requirements/ requirements/
ARG REQUIREMENTS=runtime
RUN pip install --only-binary :all: --no-deps --require-hashes -r requirements/$REQUIREMENTS.txt

# The wheel is built outside the final venv, with the version of setuptools in the development lock.
COPY pyproject.toml README.md LICENSE ./
COPY extproc/ extproc/
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements/dev.txt > build.txt \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --only-binary :all: --no-deps --require-hashes -r build.txt \
 && /opt/build/bin/pip wheel --no-build-isolation --no-deps --wheel-dir dist . \
 && pip install --no-deps --no-index dist/*.whl

FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin extproc
COPY --from=build /opt/extproc /opt/extproc
ENV PATH=/opt/extproc/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001

# By default both listen on 127.0.0.1, because a sidecar shares Envoy's network. EXTPROC_LISTEN and EXTPROC_ADMIN
# change that.
EXPOSE 50051 9902

# The check ignores HTTP_PROXY, which is for Aim. If you change EXTPROC_ADMIN, change the port here too.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-c", "from urllib.request import *; build_opener(ProxyHandler({})).open('http://127.0.0.1:9902/healthz', timeout=2)"]

# SIGTERM starts the drain. Allow a little more than drain_seconds for it (docker stop --time 35).
ENTRYPOINT ["extproc"]
CMD ["serve"]
