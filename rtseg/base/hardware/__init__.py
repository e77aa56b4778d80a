"""Facts about the machine, read in one place: CPU, memory, GPU and driver, and the load by other processes.

    cpu.py      model, instruction sets, cores, hyperthreads, a container's quota
    memory.py   of the host and of this process
    gpu.py      devices, drivers, free memory
    load.py     CPU time that other processes and the host took during a measurement
    facts.py    the facts that are stored with measured figures

The facts come from psutil; /proc and /sys are read only for those that psutil does not have.
"""
