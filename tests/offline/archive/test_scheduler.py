"""The scheduler on a cluster in virtual time: who gets what, what is repeated, what a death costs."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.archive_cluster import Cost, VirtualCluster
from rtseg.base.errors import PromptError
from rtseg.offline.archive.jobs import Event, Job, Outcome
from rtseg.offline.archive.manifest import Row
from rtseg.offline.archive.options import Options
from rtseg.offline.archive.scheduler import STARTS, Limits, Scheduler, Video


def rows(count: int) -> list[Row]:
    return [Row(line, (f"{line}.mp4",), "p.json", f"{line}", Options(), ({},)) for line in range(1, count + 1)]


def job(row: Row) -> Job:
    return Job(row, {}, row.out, "key")


def failed(line: int, again: bool, fresh: bool = False) -> Outcome:
    return Outcome(line, "failed", "broken", again, fresh)


def states(videos: list[Video]) -> Counter[str]:
    return Counter(video.outcome.state for video in videos if video.outcome)


def test_each_video_is_done_once_and_all_workers_work() -> None:
    cluster = VirtualCluster(lambda job: Cost(), start_s=1)
    videos = Scheduler(rows(100), cluster, Limits(workers=4), job).run()
    assert states(videos) == {"done": 100}
    assert sorted(line for _, line in cluster.submitted) == list(range(1, 101))
    assert Counter(worker for worker, _ in cluster.submitted) == {0: 25, 1: 25, 2: 25, 3: 25}
    assert cluster.now() == pytest.approx(26)


@pytest.mark.parametrize("depth", [1, 2])
def test_no_more_is_handed_out_than_workers_can_take(depth: int) -> None:
    cluster = VirtualCluster(lambda job: Cost(fetch_s=0.01))
    Scheduler(rows(50), cluster, Limits(workers=3, depth=depth), job).run()
    assert cluster.most == 3 * depth


def test_fetching_ahead_hides_the_fetching() -> None:
    times = {}
    for depth in (1, 2):
        cluster = VirtualCluster(lambda job: Cost(fetch_s=0.5, segment_s=1), start_s=0)
        Scheduler(rows(20), cluster, Limits(depth=depth), job).run()
        times[depth] = cluster.now()
    assert times[1] == pytest.approx(20 * 1.5)
    assert times[2] < 20 * 1.1


def test_the_largest_video_comes_first() -> None:
    sized = [Row(n, ("x",), "p", str(n), Options(), ({"bytes": size},)) for n, size in enumerate((5, 9, 7), 1)]
    cluster = VirtualCluster(lambda job: Cost())
    Scheduler(sized, cluster, Limits(), job).run()
    assert [line for _, line in cluster.submitted] == [2, 3, 1]


@pytest.mark.parametrize(("again", "attempts"), [(True, 3), (False, 1)])
def test_a_failure_of_a_machine_is_repeated_and_one_of_the_input_is_not(again: bool, attempts: int) -> None:
    cluster = VirtualCluster(lambda job: Cost(outcome=failed(2, again) if job.row.line == 2 else None))
    videos = Scheduler(rows(3), cluster, Limits(workers=2, retries=2), job).run()
    assert states(videos) == {"done": 2, "failed": 1}
    assert (videos[1].attempts, videos[1].causes) == (attempts, ["broken"] * attempts)


def test_a_failure_that_passes_is_kept_in_the_causes() -> None:
    tries: Counter[int] = Counter()

    def cost(job: Job) -> Cost:
        tries[job.row.line] += 1
        return Cost(outcome=failed(job.row.line, True) if tries[job.row.line] == 1 else None)

    videos = Scheduler(rows(3), VirtualCluster(cost), Limits(workers=2), job).run()
    assert states(videos) == {"done": 3}
    assert [video.causes for video in videos] == [["broken"]] * 3


@pytest.mark.parametrize("depth", [1, 2])
def test_workers_that_die_at_random_lose_no_video(depth: int) -> None:
    cluster = VirtualCluster(lambda job: Cost(0.1, 1, 0.1), mean_life_s=5, start_s=0.2, seed=3)
    videos = Scheduler(rows(200), cluster, Limits(workers=5, depth=depth, retries=9), job).run()
    assert states(videos) == {"done": 200}
    assert cluster.deaths > 20
    assert sum(len(video.causes) for video in videos) > 10
    assert "its worker died: killed" in {cause for video in videos for cause in video.causes}


def test_a_video_that_kills_its_worker_fails_alone() -> None:
    """Whatever was fetched ahead beside it is done, and it is tried as often as the limit says."""

    class Killing(VirtualCluster):
        def submit(self, worker: int, job: Job) -> None:
            super().submit(worker, job)
            if job.row.line == 7:
                self.kill(worker, 0.5)

    cluster = Killing(lambda job: Cost(fetch_s=0.01), start_s=0.1)
    videos = Scheduler(rows(12), cluster, Limits(workers=2, depth=2, retries=2), job).run()
    assert states(videos) == {"done": 11, "failed": 1}
    assert videos[6].outcome and videos[6].outcome.cause == "its worker died: killed"
    assert videos[6].attempts == 3
    assert max(len(video.causes) for video in videos if video is not videos[6]) <= 1


def test_a_worker_that_may_be_harmed_is_replaced() -> None:
    cluster = VirtualCluster(lambda job: Cost(outcome=failed(1, False, fresh=True) if job.row.line == 1 else None))
    Scheduler(rows(3), cluster, Limits(), job).run()
    assert [worker for worker, _ in cluster.submitted] == [0, 1, 1]


def test_where_no_worker_starts_all_fail_with_the_cause() -> None:
    cluster = VirtualCluster(lambda job: Cost(), fails=lambda worker: "no such weights")
    videos = Scheduler(rows(5), cluster, Limits(workers=2), job).run()
    assert {video.outcome.cause for video in videos if video.outcome} == {"no worker could start: no such weights"}
    assert cluster.submitted == []
    assert cluster.started == 2 * STARTS


def test_one_machine_that_cannot_start_workers_stops_nothing() -> None:
    cluster = VirtualCluster(lambda job: Cost(segment_s=40), fails=lambda worker: "broken GPU" if worker else "")
    videos = Scheduler(rows(6), cluster, Limits(workers=2), job).run()
    assert states(videos) == {"done": 6}
    assert 1 < cluster.started <= 1 + STARTS


def test_a_row_that_makes_no_job_fails_and_stops_nothing() -> None:
    def make(row: Row) -> Job:
        if row.line == 1:
            raise PromptError("p.json: gone")
        return job(row)

    videos = Scheduler(rows(3), VirtualCluster(lambda job: Cost()), Limits(), make).run()
    assert states(videos) == {"failed": 1, "done": 2}
    assert videos[0].outcome and videos[0].outcome.cause == "p.json: gone"


def test_who_waits_for_machines_is_told_what_is_lacking() -> None:
    class Late(VirtualCluster):
        """As a real cluster: at first nothing happens within the time that it is given."""

        def wait(self, timeout_s: float) -> list[Event]:
            if self._now > 60:
                return super().wait(timeout_s)
            self._now += timeout_s
            return []

    lines: list[str] = []
    Scheduler(rows(1), Late(lambda job: Cost(), start_s=60), Limits(), job, say=lines.append).run()
    assert lines == ["waiting for machines"]
