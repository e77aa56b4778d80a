"""`rtseg archive`: many recordings, segmented by workers of a Ray cluster.

`manifest` reads what is to be done and finds its mistakes; `scheduler` hands videos to workers and keeps account of
them; `on_ray` is the cluster that it does this on, and `worker` what runs there; `places` and `cache` move sources and
results between machines and clouds; `journal` keeps what happened to each video.
"""
