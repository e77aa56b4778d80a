"""`rtseg bench`: how long a frame takes, beside how good its masks are, on this machine.

Engines are compared in one process, in alternating blocks of frames, so that whatever else the machine does meets
them all; figures are percentiles of raw samples, and ratios come with their spread. Frames are made or decoded
beforehand, so nothing here needs `av` or `zmq` unless the clip is a video file.
"""
