# One image for api, worker and beat. Build with `--build-arg TORCH_INDEX=...` to name an index with the torch build you want;
# without it pip's default is taken, which is a CUDA build.
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 HF_HUB_OFFLINE=1
WORKDIR /srv/lco

ARG TORCH_INDEX=
COPY requirements-torch.lock requirements.lock ./
RUN PIP_EXTRA_INDEX_URL="$TORCH_INDEX" pip install -r requirements-torch.lock
RUN pip install --no-deps --require-hashes -r requirements.lock

COPY pyproject.toml README.md ./
COPY lco lco
COPY evaluation evaluation
COPY store store
COPY api api
COPY worker worker
COPY migrations migrations
RUN pip install --no-deps --no-build-isolation .

RUN useradd --create-home --uid 10001 lco && mkdir -p /var/lib/lco && chown lco:lco /var/lib/lco
USER lco
VOLUME /var/lib/lco
ENV LCO_DATA_DIR=/var/lib/lco
EXPOSE 8642
CMD ["lco", "up"]
