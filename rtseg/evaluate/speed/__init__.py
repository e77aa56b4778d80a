"""`rtseg bench`: the time of a frame and the accuracy of its masks, on this machine.

Engines are compared in one process, in alternating blocks of frames, so that other load on the machine affects all of
them alike. Figures are percentiles of raw samples, and ratios have intervals. Frames are made or decoded beforehand, so
nothing here needs `av` or `zmq` unless the clip is a video file.
"""
