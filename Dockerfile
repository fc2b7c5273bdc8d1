# The web process and the worker are the same image with two commands.
FROM python:3.11-slim

# torch's builds with CUDA are large. Pass the index of its CPU builds to get the small one of the same version:
#   docker compose build --build-arg PIP_EXTRA_INDEX_URL=...
# A CPU build is called 2.13.0+cpu; the constraint of 2.13.0 admits it, and pip prefers it.
ARG PIP_EXTRA_INDEX_URL=""

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app

# The dependencies change less often than the code: a layer of their own.
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Without any package there, this installs what they depend on.
RUN pip install -c constraints.txt ".[postgres,redis]"

COPY brushloop brushloop
COPY core core
COPY ml_backend ml_backend
COPY simulation simulation
RUN pip install -c constraints.txt --no-deps --force-reinstall .

# Neither web nor worker needs any right beyond its data.
RUN useradd --create-home --uid 1000 brushloop && install -d -o brushloop -g brushloop /data
USER brushloop
WORKDIR /home/brushloop

ENV DATA_DIR=/data \
    OMP_WAIT_POLICY=PASSIVE
VOLUME /data
EXPOSE 9090

HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9090/health', timeout=3)"]

STOPSIGNAL SIGTERM
CMD ["brushloop", "serve", "--host", "0.0.0.0", "--port", "9090"]
