"""Deinterlaces pictures, as from 1080i towers: one out for each one in, without delay.

A deinterlacing filter needs the next picture, which delays a live feed by one picture. Here each picture is followed by
a copy of itself that is marked as progressive: the filter uses the copy as the next picture, and passes it through. So
nothing is delayed, and the previous picture still keeps motionless parts sharp.
"""

from __future__ import annotations

from fractions import Fraction

import av
from av.filter import Graph

from ...base.source import Mode

TICK = Fraction(1, 90_000)  # the filter only needs the order of the pictures


class Deinterlacer:
    """`auto`: only pictures that the stream marks as interlaced; `on`: all, those unmarked with the top field first."""

    def __init__(self, mode: Mode) -> None:
        self._mode, self._shape, self._count = mode, (0, 0, ""), 0
        self._work, self._plain, self._mark = Graph(), Graph(), Graph()

    def __call__(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The deinterlaced picture: its newer field, with the other lines interpolated; pts and size stay."""
        marked = bool(picture.interlaced_frame)
        if self._mode == "off" or (self._mode == "auto" and not marked):
            self._shape = (0, 0, "")  # start anew: the next interlaced picture follows a progressive one
            return picture
        shape = (picture.width, picture.height, picture.format.name)
        if shape != self._shape:
            self._build(picture)
            self._shape = shape
        pts, time_base = picture.pts, picture.time_base
        picture.pts, picture.time_base = self._count, TICK
        source = picture if marked else _through(self._mark, picture)
        _through(self._work, source)
        copy = _through(self._plain, picture)
        copy.pts = self._count + 1
        whole = _through(self._work, copy)
        self._count += 2
        for each in (picture, whole):
            each.pts = pts
            if time_base is not None:
                each.time_base = time_base
        return whole

    def _build(self, picture: av.VideoFrame) -> None:
        self._work = _graph(picture, "bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        self._plain = _graph(picture, "setfield", "mode=prog")
        self._mark = _graph(picture, "setfield", "mode=tff")


def _graph(picture: av.VideoFrame, name: str, settings: str) -> Graph:
    graph = Graph()
    graph.threads = 1
    first = graph.add_buffer(width=picture.width, height=picture.height, format=picture.format, time_base=TICK)
    middle, last = graph.add(name, settings), graph.add("buffersink")
    first.link_to(middle)
    middle.link_to(last)
    graph.configure()
    return graph


def _through(graph: Graph, picture: av.VideoFrame) -> av.VideoFrame:
    """Push a picture through a filter graph; returns its newest picture, or the pushed one if it has none."""
    graph.vpush(picture)
    newest = picture
    while True:
        try:
            newest = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return newest
