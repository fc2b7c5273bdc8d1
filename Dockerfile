# The web process and the worker are the same image with two commands.

# torch's builds for CUDA weigh gigabytes. `cpu` runs everywhere; for a graphics card name its CUDA, as in cu130:
#   docker compose --profile cuda up --detach --build
# An empty one takes torch from where the other packages come from.
ARG TORCH_BACKEND=cpu

FROM python:3.11-slim AS build
ARG TORCH_BACKEND

ENV PYTHONUNBUFFERED=1 \
    UV_NO_CACHE=1 \
    UV_LINK_MODE=copy \
    VIRTUAL_ENV=/opt/brushloop \
    PATH=/opt/brushloop/bin:$PATH

WORKDIR /source
RUN pip install --no-cache-dir --disable-pip-version-check uv && uv venv "$VIRTUAL_ENV"

# The dependencies change less often than the code: a layer of their own. Without any package there, this installs
# what they depend on.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN uv pip install ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} -c constraints.txt ".[postgres,redis]" \
    && cd "$VIRTUAL_ENV"/lib/python3*/site-packages && rm -rf torch/test torch/include pandas/tests

COPY . .
RUN uv pip install --no-deps --reinstall-package brushloop .
# Compiled here what a start imports, because a container cannot write it down.
RUN cd / && brushloop --version && python -c "import ml_backend.bootstrap, ml_backend.worker, core.rle._kernels"

FROM python:3.11-slim

COPY --from=build /opt/brushloop /opt/brushloop

# Neither web nor worker needs any right beyond its data.
RUN useradd --create-home --uid 1000 brushloop && install -d -o brushloop -g brushloop /data
USER brushloop
WORKDIR /home/brushloop

# The root may be read-only: what is compiled at run time is kept with the data.
ENV PATH=/opt/brushloop/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DATA_DIR=/data \
    NUMBA_CACHE_DIR=/data/compiled \
    OMP_WAIT_POLICY=PASSIVE
VOLUME /data
EXPOSE 9090

HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9090/health', timeout=3)"]

STOPSIGNAL SIGTERM
CMD ["brushloop", "serve", "--host", "0.0.0.0", "--port", "9090"]
