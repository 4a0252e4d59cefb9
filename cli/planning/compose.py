"""Writes the compose file of a plan: one service per group, complete without any other file."""

import json
from collections.abc import Iterator
from string import Template
from typing import Final

from cli.planning.layouts import Working
from cli.planning.timing import Video
from shared.vocabulary.planning import plan

_FRAME: Final = Template("""\
# Written by `wanfarm plan`, version $version, for
#   $inputs
# $told
#
# Beside the farm of docker-compose.yml, in its folder and after `make secrets`:
#   $run
# On another host alone, with FARM_GROUPS=<another letter>, FARM_REDIS_URL, the first host's URL of
# Postgres in secrets/database-url, and a result store that both hosts see:
#   docker compose -f $name --profile planned up -d --build
# A group starts again until Postgres has its schema: compose knows no waiting for another file.
name: wanfarm

x-group: &group
  image: wanfarm-worker:$version
  build: {context: ., dockerfile: deploy/Dockerfile.worker}
  profiles: [planned]
  command: [wanfarm, worker, run]
  init: true
  user: "10001:10001"
  read_only: true
  tmpfs: ["/tmp:mode=1777"]
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  restart: "unless-stopped"
  logging:
    driver: local
    options: {max-size: 20m, max-file: "5"}
  secrets: [database-url]
  env_file: [{path: ./secrets/s3.env, required: false}]
  shm_size: 16gb
  ipc: private
  ulimits:
    memlock: -1
    stack: 67108864
    nofile: 65536
  volumes:
    - "data:/data"
    - "compile-cache:/cache"
    - "$${FARM_WEIGHTS:-./weights}:/weights:ro"
  stop_grace_period: 30m
  healthcheck:
    test: [CMD, wanfarm, ping, worker]
    interval: 30s
    timeout: 10s
    start_period: 15m
    start_interval: 5s

x-environment: &environment
  DATABASE_URL_FILE: /run/secrets/database-url
  REDIS_URL: "$${FARM_REDIS_URL:-redis://redis:6379/0}"
  WANFARM_DATA_DIR: /data
  WANFARM_LORA_DIR: /data/loras
  WANFARM_PUBLIC_URL: "$${FARM_PUBLIC_URL:-}"
  WANFARM_DEVICE: cuda
  WANFARM_RANKS: "$ranks"
  WANFARM_PARALLEL: $parallel
  WANFARM_PRECISION: $precision
  WANFARM_MODELS: $model
  WANFARM_MODELS_DIR: /weights
  WANFARM_DRAIN_S: "600"
  WANFARM_HOST: 0.0.0.0
  WANFARM_METRICS_PORT: "9464"
  HF_HUB_OFFLINE: "1"
  HOME: /tmp
  NVIDIA_DRIVER_CAPABILITIES: compute,utility
  TORCHINDUCTOR_CACHE_DIR: /cache/inductor
  TRITON_CACHE_DIR: /cache/triton

services:
$services
volumes:
  data: {}
  compile-cache: {}

secrets:
  database-url: {file: ./secrets/database-url}
""")
_SERVICE: Final = Template("""\
  worker-p$number:
    <<: *group
    environment:
      <<: *environment
      WANFARM_GROUP: "$${FARM_GROUPS:-p}$number"
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              device_ids: $devices$note
              capabilities: [gpu]
""")


def run_command(name: str) -> str:
    """The command that starts the planned groups beside the rest of the farm."""
    return f"docker compose -f docker-compose.yml -f {name} --profile planned up -d --build"


def compose(
    chosen: Working, video: Video, uuids: tuple[str, ...], *, name: str, inputs: str, version: str
) -> str:
    """Write the file.

    Args:
        chosen: the way that was taken.
        video: what it was chosen for.
        uuids: the machine's GPUs by index, or nothing where only their number is known.
        name: the file's own.
        inputs: what the plan was made from, in words.
        version: of wanfarm.
    """
    estimate = chosen.estimate
    told = (
        f"{chosen.way}: {estimate.seconds:.0f} s a video, {chosen.videos_per_hour:.1f} videos an "
        f"hour ({estimate.basis}: {estimate.source})"
    )
    return _FRAME.substitute(
        version=version,
        inputs=inputs,
        told=told,
        run=run_command(name),
        name=name,
        ranks=chosen.layout.ranks,
        parallel=_parallel(chosen, video),
        precision=video.build.precision,
        model=video.spec.model,
        services="\n".join(_services(chosen, uuids)),
    )


def _parallel(chosen: Working, video: Video) -> str:
    """`auto` where a group would lay the video out so by itself: others are then free to differ."""
    by_itself = plan(video.spec, chosen.layout.ranks)
    degrees = chosen.way.degrees
    if (by_itself.cfg, by_itself.ulysses, by_itself.ring) == degrees:
        return "auto"
    return "x".join(map(str, degrees))


def _services(chosen: Working, uuids: tuple[str, ...]) -> Iterator[str]:
    note = "" if uuids else " # indices: a change of order would move them"
    for number, members in enumerate(chosen.members):
        devices = [uuids[index] if uuids else str(index) for index in members]
        yield _SERVICE.substitute(number=number, devices=json.dumps(devices), note=note)
