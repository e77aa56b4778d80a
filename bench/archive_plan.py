"""An archive of 10,000 hours on 100 workers, on paper: the archive's own scheduler on a cluster in virtual time.

    python -m bench.archive_plan [--hours 10000] [--workers 100] [--fps 100] [--gbps 10] [--life-h 24] [--plot P.png]

    fps       frames a second that one worker's network does; videos have 25, and last --video-h each
    gbps      bandwidth of the storage for all workers, in gigabits a second; a transfer gets at most --each-gbps
    puts      files a second that the storage takes; a result has --files for each second of video
    life-h    mean hours until a worker is killed; a new one needs --start-s until it is ready
    segment   frames between two checkpoints: what a killed worker loses at most, if the next finds its disk

It says how long it takes, how busy networks and storage are, and what failures cost; then the same over a range of
bandwidths, rates and failures, as tables and as a picture. Nothing here was measured on 100 machines.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.archive_cluster import Cost, VirtualCluster
from rtseg.offline.archive.jobs import Job
from rtseg.offline.archive.manifest import Row
from rtseg.offline.archive.options import Options
from rtseg.offline.archive.scheduler import Limits, Scheduler

VIDEO_FPS = 25


@dataclass(frozen=True)
class Plan:
    """The rates of an archive; the module's text has their units."""

    hours: float = 10_000
    workers: int = 100
    fps: float = 100
    gbps: float = 10
    each_gbps: float = 2
    in_mbit: float = 8  # of a source, for each second of video
    out_mbit: float = 6  # of a result: overlay, masks, tables
    files: int = 25  # of a result, for each second of video
    puts: float = 20_000  # files a second that the storage takes
    life_h: float = 24
    start_s: float = 60
    segment: int = 250
    video_h: float = 1
    depth: int = 2
    resumes: bool = True  # the next attempt finds the checkpoints: a shared file system, or the same machine
    seed: int = 0


@dataclass(frozen=True)
class Told:
    """What came out, in hours and shares of 1."""

    hours: float
    network: float
    storage: float
    lost: float
    deaths: int
    failed: int


def simulate(plan: Plan) -> Told:
    """Run the plan. Lengths of videos vary around `video_h` (log-normal, a third)."""
    draw = random.Random(plan.seed)
    count = max(1, round(plan.hours / plan.video_h))
    lengths = [draw.lognormvariate(0, 1 / 3) for _ in range(count)]
    scale = plan.hours * 3600 / sum(lengths)
    rows = [
        Row(line, (f"{line}.mp4",), "p", str(line), Options(), ({"bytes": int(1e6 * length * scale)},))
        for line, length in enumerate(lengths, 1)
    ]

    def cost(job: Job) -> Cost:
        seconds = lengths[job.row.line - 1] * scale
        files_s = plan.files * seconds / plan.puts
        return Cost(
            fetch_s=seconds * plan.in_mbit / 1000 / plan.gbps,
            segment_s=seconds * VIDEO_FPS / plan.fps,
            upload_s=max(seconds * plan.out_mbit / 1000 / plan.gbps, files_s),
            frames=round(seconds * VIDEO_FPS),
            saved_s=plan.segment / plan.fps if plan.resumes else None,
        )

    life = plan.life_h * 3600 if plan.life_h else None
    cluster = VirtualCluster(
        cost, start_s=plan.start_s, mean_life_s=life, each=min(1.0, plan.each_gbps / plan.gbps), seed=plan.seed
    )
    limits = Limits(plan.workers, plan.depth, retries=20)
    videos = Scheduler(rows, cluster, limits, lambda row: Job(row, {}, row.out, "")).run()
    spent = cluster.now()
    return Told(
        spent / 3600, cluster.busy_s / (spent * plan.workers), cluster.storage_s / spent,
        cluster.lost_s / max(1e-9, cluster.busy_s), cluster.deaths,
        sum(video.outcome is None or video.outcome.state == "failed" for video in videos),
    )  # fmt: skip


def sweep(plan: Plan, name: str, values: list[float]) -> list[tuple[float, Told]]:
    return [(value, simulate(replace(plan, **{name: value}))) for value in values]


def table(title: str, name: str, found: list[tuple[float, Told]]) -> str:
    lines = [
        title,
        "",
        f"| {name} | hours | networks busy | storage busy | work lost | workers killed |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {value:g} | {told.hours:.1f} | {told.network:.0%} | {told.storage:.0%} | {told.lost:.2%} | {told.deaths} |"
        for value, told in found
    ]
    return "\n".join(lines) + "\n"


def draw_plot(path: Path, plan: Plan, found: dict[str, list[tuple[float, Told]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    bandwidth, workers = found["gbps"], found["workers"]
    axes[0].plot([x for x, _ in bandwidth], [told.hours for _, told in bandwidth], "o-", label="whole archive")
    axes[0].axhline(ideal(plan), ls=":", color="grey", label="networks alone")
    axes[0].set(xscale="log", yscale="log", title=f"{plan.workers} workers of {plan.fps:g} frames/s")
    axes[0].set(xlabel="storage, Gbit/s for all", ylabel=f"hours for {plan.hours:g} hours of video")
    axes[1].plot([x for x, _ in workers], [told.hours for _, told in workers], "o-", label="whole archive")
    axes[1].plot([x for x, _ in workers], [ideal(replace(plan, workers=int(x))) for x, _ in workers], ":", color="grey",
                 label="networks alone")  # fmt: skip
    axes[1].set(
        xscale="log",
        yscale="log",
        xlabel="workers",
        ylabel=f"hours for {plan.hours:g} hours of video",
        title=f"storage of {plan.gbps:g} Gbit/s",
    )
    for name, label in (("life_h", "checkpoints are found"), ("life_h again", "begins anew")):
        axes[2].plot([x for x, _ in found[name]], [100 * told.lost for _, told in found[name]], "o-", label=label)
    axes[2].set(xscale="log", yscale="log", xlabel="mean life of a worker, hours", ylabel="work done twice, %",
                title="what failures cost")  # fmt: skip
    for axis in (*(one.xaxis for one in axes), axes[0].yaxis, axes[1].yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes[0].set_yticks([6, 10, 20, 40])
    axes[1].set_yticks([2, 5, 10, 20, 60])
    for one in axes:
        one.grid(alpha=0.3, which="both")
        one.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def ideal(plan: Plan) -> float:
    """Hours of the networks alone."""
    return plan.hours * VIDEO_FPS / plan.fps / plan.workers


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in asdict(Plan()).items():
        kind: Callable[[str], object] = (lambda text: text == "True") if isinstance(value, bool) else type(value)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=value)
    parser.add_argument("--plot", type=Path)
    args = vars(parser.parse_args(words))
    plot = args.pop("plot")
    plan, began = Plan(**args), time.monotonic()
    told = simulate(plan)
    print(f"{plan.hours:g} hours on {plan.workers} workers: {told.hours:.1f} h; the networks alone {ideal(plan):.1f} h")
    print(f"networks {told.network:.0%} busy, storage {told.storage:.0%}; {told.deaths} workers killed, "
          f"{told.lost:.2%} of the work done twice, {told.failed} videos failed")  # fmt: skip
    print(f"{plan.hours * 3600 * plan.files:.3g} files are written\n")
    part = replace(plan, hours=plan.hours / 4)  # the rest is proportional
    print(f"The tables are for {part.hours:g} hours.\n")
    found = {
        "gbps": sweep(part, "gbps", [1, 2, 4, 10, 40]),
        "puts": sweep(part, "puts", [3500, 7000, 20_000, 100_000]),
        "workers": sweep(part, "workers", [10, 30, 100, 300]),
        "life_h": sweep(part, "life_h", [1, 4, 24, 168]),
        "life_h again": sweep(replace(part, resumes=False), "life_h", [1, 4, 24, 168]),
        "files": sweep(part, "files", [25, 1]),
        "segment": sweep(replace(part, life_h=1), "segment", [25, 250, 2500, 25_000]),
    }
    titles = {
        "gbps": "storage, Gbit/s for all workers", "puts": "files a second that the storage takes",
        "workers": "workers", "life_h": "mean life of a worker in hours, checkpoints found",
        "files": "files of a result for each second of video",
        "life_h again": "the same, each attempt begins anew", "segment": "frames of a segment, workers live one hour",
    }  # fmt: skip
    for name, rows in found.items():
        print(table(titles[name], name.split()[0], rows))
    if plot:
        draw_plot(plot, part, found)
    print(f"({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
