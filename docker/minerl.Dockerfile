# MineStudio (the maintained MineRL 1.0 engine) in Python 3.10 with Temurin 8 and a virtual display, and worldpack-env beside it in a Python
# of its own. From the repository's root:
#
#   docker build -f docker/minerl.Dockerfile -t worldpack-minerl .
#   docker run --rm worldpack-minerl doctor minerl
#   docker run --rm -v "$PWD/runs:/runs" worldpack-minerl compare --world minerl --out /runs/compare
#
# Not run by the project: its CI lints this file and installs what package registries have. See docs/minerl.md.
FROM eclipse-temurin:8-jdk-jammy AS java

FROM python:3.10-slim-bookworm
COPY --from=java /opt/java/openjdk /opt/java/openjdk
ENV JAVA_HOME=/opt/java/openjdk \
    PATH=/opt/java/openjdk/bin:$PATH \
    MINESTUDIO_DIR=/opt/minestudio \
    PIP_NO_CACHE_DIR=1

# Debian's own python3 is 3.11, which worldpack-env needs; python3.10 is the image's. Minecraft draws with Mesa on a virtual X display.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        python3 python3-venv gcc g++ xvfb xauth libgl1 libgl1-mesa-dri libglib2.0-0 \
        libxcursor1 libxext6 libxi6 libxrandr2 libxrender1 libxtst6 libxxf86vm1 \
    && rm -rf /var/lib/apt/lists/*

RUN python3.10 -m venv /opt/minerl \
    && /opt/minerl/bin/pip install minestudio==1.1.6 \
    && /opt/minerl/bin/python -c "from minestudio.simulator.entry import check_engine; check_engine(skip_confirmation=True)"

COPY . /src
RUN /usr/bin/python3 -m venv /opt/worldpack \
    && /opt/worldpack/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu \
    && /opt/worldpack/bin/pip install /src

RUN useradd --create-home --uid 1000 worldpack && chown -R worldpack /opt/minestudio
USER 1000
WORKDIR /home/worldpack
ENV WORLDPACK_MINERL_PYTHON=/opt/minerl/bin/python \
    WORLDPACK_MINERL_BACKEND=minestudio
ENTRYPOINT ["xvfb-run", "-a", "/opt/worldpack/bin/worldpack"]
CMD ["doctor", "minerl"]
