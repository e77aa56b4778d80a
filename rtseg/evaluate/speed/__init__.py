"""`rtseg bench`: how long a frame takes, beside how good its masks are, on this machine.

Engines are compared in one process, in alternating blocks of frames, so that other load on the machine affects all of
them alike; figures are percentiles of raw samples, and ratios come with their spread. Frames are made or decoded
beforehand, so nothing here needs `av` or `zmq` unless the clip is a video file.
"""
