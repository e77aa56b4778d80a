"""The one reader of what the machine is: CPU and cores, memory, GPU and driver, and how busy others keep it.

    cpu.py      model, instruction sets, cores, hyperthreads, a container's quota
    memory.py   of the host and of this process
    gpu.py      devices, drivers, free memory
    load.py     what other processes and the host took during a measurement
    facts.py    all of it that stands beside a figure

psutil is asked where it knows; /proc and /sys are read only where it does not.
"""
