"""How a picture becomes the network's input: resized to a square of S x S pixels, normalised, channels first.

planes.py         the definition, in numpy and OpenCV: `to_planes`; tests compare every other implementation with it
tensors.py        the same as a tensor, for engines that work in torch
interpolation.py  the interpolation weights: which source pixels make each target pixel
cpu_kernel.py     the same on the CPU kernels
torch_resize.py   the same in torch operations, for a GPU and its CUDA graphs
frame.cu          CUDA kernels: NV12 to RGB, resize and normalise, masks onto pictures; frame_kernels.py calls them on
                  tensors, launch.py compiles and launches them
upload.py         pinned host memory, and asynchronous copies to a device
recorded.py       pictures of any size for an engine that records its work: uploads and conversions, by size
device_picture.py a picture that stays on its GPU; on_gpu.py: from a hardware decoder to the drawn overlay
"""
