"""What an NVIDIA GPU gives: is it right, how fast is it, beside whom, and what limits it.

__main__.py   the command: a share of the time for each part, results that a second run goes on with
parts.py      the parts, in order, with their shares; child.py: each in a process of its own
case.py       networks, pictures and engines that parts share; shipped weights without `safetensors`
verbs.py      each verb beside fp32 on the CPU; clip.py: parity, compute-sanitizer; fuzz.py: sizes, objects
speed.py      tracked frames: percentiles, memory; waits.py: what the host waits for; peers.py: transformers, TensorRT
limits.py     each verb beside its floor of bytes and FLOP; table.py: results for people
"""
